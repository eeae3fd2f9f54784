"""What a user meets is told in a line."""

import pytest

from training_mac.run.input_errors import training_errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "mac-train: stopped. The same command goes on from the last checkpoint"),
        (FloatingPointError("not finite"), 1, "mac-train: not finite"),
    ],
)
def test_a_training_ends_with_one_line(error: BaseException, code: int, line: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended, training_errors():
        raise error
    told = capsys.readouterr().err
    assert ended.value.code == code and told.startswith(line) and told.count("\n") == 1


def test_a_fault_of_the_code_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError), training_errors():
        raise RuntimeError("a fault")
