"""The README's commands: every one names a config and options that exist, and the offline ones run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parsec.command.config_files import list_configs, load_config, load_target, load_training
from parsec.command.launch import parse_overrides
from parsec.config import check, override

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|[\s`(])(?:\.venv/bin/)?python3? main\.py((?: +--[^\s`|)']+'?)*)")


def commands() -> list[list[str]]:
    texts = [page.read_text() for page in PAGES]
    texts += [(ROOT / "configs" / f"{name}.py").read_text().split('"""')[1] for name in list_configs()]
    # A command may go on in the next line, and quote an option for the shell.
    plain = [re.sub(r" \\\n\s*", " ", text).replace("'--", "--") for text in texts]
    return [match.split() for text in plain for match in COMMAND.findall(text)]


def test_there_are_commands_for_every_config():
    named = {
        word.removeprefix("--config=").split(":")[0] for words in commands() for word in words if "--config=" in word
    }
    assert named >= set(list_configs())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_names_configs_and_options_that_exist(words: list[str]):
    overrides = [word for word in words if re.match(r"--(config|target|train)\.", word)]
    flags = dict(word.lstrip("-").split("=", 1) for word in words if "=" in word and word not in overrides)
    assert not set(flags) - {"config", "workdir", "transfer_to", "predict", "export", "out"}
    if "config" not in flags and {"predict", "export"} & set(flags):
        return
    if flags.get("config", "NAME") == "NAME" or flags["config"].endswith(".py"):
        return
    settings = parse_overrides(overrides)
    check(override(load_config(flags["config"]).config, settings.config))
    assert ("transfer_to" in flags) >= bool(settings.target) and ("--train" in words) >= bool(settings.train)
    if "transfer_to" in flags:
        target = load_target(flags["transfer_to"])
        check(override(target.config, settings.target))
        if "--train" in words:
            check(override(load_training(target).config, settings.train))


def test_the_lines_that_set_up_use_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"pip install -q -r (\S+)", text):
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


@pytest.mark.slow
def test_the_main_job_of_the_readme_runs_shortened(tmp_path: Path):
    brief = {"strategy.evaluations": 2, "strategy.steps": 2, "derive.final_steps": 2, "verify.steps": 2}
    brief |= {"derive.finalists": 2, "verify.random": 5}
    command = [sys.executable, "main.py", "--config=digits_search", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{name}={value}" for name, value in brief.items()]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Genotype(normal=[" in done.stdout and "random cells" in done.stdout
