"""The commands about a trained network, `--predict` and `--export`: which of their flags go together."""

from collections.abc import Mapping, Sequence

from parsec.errors import UserError

NETWORK_FLAGS = ("predict", "export", "out")


def run_network_command(flags: Mapping[str, str | None], rest: Sequence[str]) -> None:
    """Runs `--predict` or `--export`.

    Args:
      flags: the value of each flag, None where it was not given.
      rest: what is no flag: files for the one, forms for the other.

    Raises:
      UserError: flags that do not go together, or what the command itself refuses.
    """
    command = next((name for name in ("predict", "export") if flags[name] is not None), None)
    if command is None:
        raise UserError("--out=FILE.csv goes with --predict=RUN_DIR, which is not given")
    allowed = {"predict": ("predict", "out"), "export": ("export",)}[command]
    for name, value in flags.items():
        if value and name not in allowed:
            raise UserError(f"--{name} does not go with --{command}; leave one of them out")
    if strange := [word for word in rest if word.startswith("--")]:
        raise UserError(f"--{command} has no flag {strange[0]}; python main.py --help lists the flags")
    directory = flags[command] or "."
    # Imported late: a mistake in the flags is answered without waiting for JAX.
    if command == "predict":
        from parsec.jobs.train.predict import run_predict

        run_predict(directory, rest, flags["out"])
    else:
        from parsec.jobs.train.export import run_export

        run_export(directory, rest)
