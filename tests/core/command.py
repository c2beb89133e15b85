"""The `mponet` command as tests call it, within their own process."""

import json

from click.testing import CliRunner

from mponet.cli.group import mponet


def run(*arguments, **variables):
    return CliRunner().invoke(mponet, arguments, env=variables or None, prog_name="mponet")


def facts(*arguments, **variables):
    """The JSON object that a command prints; nothing else may be on standard output."""
    result = run(*arguments, "--json", **variables)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failing(result, *parts):
    """Asserts one line on standard error with all these parts, status 1 and no traceback."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr
