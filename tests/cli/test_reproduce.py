"""`steering reproduce`."""

from steering.experiments import experiments


def test_without_a_name_all_are_listed(steering):
    done = steering("reproduce", "--json")
    assert list(done.answer["experiments"]) == list(experiments())
    assert "jailbreak" in steering("reproduce").out


def test_one_is_run_kept_and_reported(steering, model_folder, tmp_path):
    folder = tmp_path / "run"
    command = ["reproduce", "utility", "--vectors", "poetic", "--epochs", "1", "--model", model_folder]
    done = steering(*command, "--report", folder, "--json")
    (row,) = done.answer["rows"]
    assert row["vector"] == "poetic" and 0 <= row["right untouched"] <= 1
    assert (folder / "report.html").is_file() and (folder / "result.json").is_file()
    assert "In the paper: Table 11" in steering(*command, "--report", folder).out


def test_what_cannot_be_is_told_in_one_line(steering, model_folder):
    for arguments, says in (
        (["magic"], "no experiment 'magic'"),
        (["utility", "--prompt-count", "1"], "--prompt-count is 1"),
        (["utility", "--epochs", "0"], "--epochs is 0"),
        (["utility", "--vectors", "magic"], "no behavior 'magic'"),
    ):
        done = steering("reproduce", *arguments, "--model", model_folder)
        assert done.status == 2 and says in done.err and done.err.count("\n") == 1
