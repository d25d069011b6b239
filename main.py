"""The command line of PARSEC.

usage: python main.py --config=NAME[:VARIANT] [--config.KEY=VALUE ...] [--workdir=DIR] [--help]
       python main.py --config=SOURCE --transfer_to=TARGET[:VARIANT] [--target.KEY=VALUE ...]
                      [--train] [--train.KEY=VALUE ...]
       python main.py --config=NAME[:VARIANT] ... --multihost
       python main.py --predict=RUN_DIR FILES_OR_FOLDERS [--out=FILE.csv]
       python main.py --export=RUN_DIR [stablehlo] [onnx] [torch]

  --config       a config listed below, or the path of a .py file of your own; alone, it runs it
  --config.KEY   changes one setting; any number of these; --config=NAME --help lists the settings
  --workdir      the run directory, runs/<config>[-<variant>] by default; the same command resumes an unfinished run
  --transfer_to  a second config, to which the prior that the first one learnt is carried over
  --target.KEY   changes one setting of that second config
  --train        goes on to train the cell that the second config found; --train.KEY changes one setting of that
  --multihost    this is one of several processes that run the config together, each on devices of its own: a training,
                 or a search of weights and prior together. They are found by SLURM, Open MPI, Kubernetes or Cloud TPU,
                 or by JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID
  --predict      the run directory of a finished training, or of images; prints class and probability of each image
  --export       the same; writes its network in the forms named, or in all whose packages are installed
  --out          with --predict: a .csv file that gets the same as a table
"""

import sys
from collections.abc import Sequence

# The rest is imported where signals are answered: a Ctrl-C may come in the first moment.
from parsec.errors import UserError
from parsec.run.signals import answer_signals
from parsec.run.terminal import flush_output, make_printable, outcome, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code: 0, 2 for a user's mistake, 128 + n when stopped by signal n."""
    with answer_signals() as answer:
        make_printable()
        try:
            _run(arguments)
            flush_output()
        except BaseException as error:
            answered = outcome(error, answer.signal)
            if answered is None:
                raise
            say(answered[1])
            return answered[0]
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    from absl import flags

    from parsec.command.config_files import list_configs
    from parsec.command.launch import explain, launch, parse_overrides
    from parsec.command.network_commands import NETWORK_FLAGS, run_network_command

    given = flags.FlagValues()
    for name in ("config", "workdir", "transfer_to", *NETWORK_FLAGS):
        flags.DEFINE_string(name, None, "see the top of this file", flag_values=given)
    flags.DEFINE_boolean("help", False, "see the top of this file", short_name="h", flag_values=given)
    for name in ("train", "multihost"):
        flags.DEFINE_boolean(name, False, "see the top of this file", flag_values=given)
    try:
        # What is no flag of these is an option of the config, checked once the config is known.
        _, *overrides = given(["main.py", *(sys.argv[1:] if arguments is None else arguments)], known_only=True)
    except flags.Error as error:
        raise UserError(f"{error}; python main.py --help lists the flags") from None
    if any(given[name].value is not None for name in NETWORK_FLAGS):
        run_network_command({name: given[name].value for name in given}, overrides)
    elif given.config and given.help:
        print(explain(given.config, given.transfer_to, given.train))
    elif given.config:
        launch(given.config, overrides, given.workdir, given.transfer_to, given.train, given.multihost)
    elif any(parse_overrides(overrides)) or given.workdir or given.transfer_to or given.train or given.multihost:
        raise UserError("no --config given; python main.py lists the configs")
    else:
        configs = list_configs()
        width = max(map(len, configs), default=0)
        print(__doc__, "configs:", *(f"  {name:<{width}}  {line}" for name, line in configs.items()), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
