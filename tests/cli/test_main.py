"""The `steering` command as a whole: bad usage, bad input, help, streams; most of it in this process."""

import os
import re
import subprocess
import sys

import pytest
import torch

from steering import __version__
from steering.cli import main as cli
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.cli.command import COMMANDS, ROOT, TRAIN_KEYS, in_a_process, vector_of, write_pairs

# Bad usage and bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "required: COMMAND"),
        ("trian", "invalid choice: 'trian'"),
        ("list extra", "unrecognized arguments: extra"),
        ("--json list", "unrecognized arguments: --json"),
        ("train", "required: PAIRS, --output"),
        ("train PAIRS --output new.pt", "a vector file ends in .safetensors; name it new.safetensors"),
        ("train PAIRS --output PAIRS/a/new.safetensors", "cannot be written; choose another place"),
        ("train PAIRS --output FOLDER.safetensors", "cannot be written; choose another place"),
        ("train PAIRS --output LONG.safetensors", "cannot be written; choose another place"),
        ("train none.csv --output new.safetensors", "none.csv: there is no such file"),
        ("train WRONG --output new.safetensors", "wrong.csv: .*column"),
        ("train PAIRS --output new.safetensors --columns prompt", "--columns 'prompt': write it as prompt=A"),
        ("train PAIRS --output new.safetensors --columns prompt=zz", "there is no column 'zz'"),
        ("train PAIRS --output new.safetensors --holdout 1", "held-out share is 1.0; give a number from 0"),
        ("train PAIRS --output new.safetensors --holdout nan", "held-out share is nan"),
        ("train PAIRS --output new.safetensors --holdout 0 --test-pairs PAIRS", "not allowed with argument"),
        ("train PAIRS --output new.safetensors --test-pairs PAIRS", "prompt also in"),
        ("train PAIRS --output new.safetensors --epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
        ("train PAIRS --output new.safetensors --hold 0", "unrecognized arguments: --hold 0"),
        ("train PAIRS --output new.safetensors --model MODEL --layer 4", "Layer 4 does not exist in tiny; .* 0 to 3"),
        ("train PAIRS --output new.safetensors --model MODEL --layer -1", "Layer -1 does not exist"),
        (
            "train PAIRS --output new.safetensors --layer best",
            "'best' is no layer; give a whole number, several as 10,14",
        ),
        ("train PAIRS --output new.safetensors --layer 1,", "'1,' is no layer"),
        ("train PAIRS --output new.safetensors --model MODEL --layer 1,9", "Layer 9 does not exist"),
        ("train PAIRS --output new.safetensors --effort much", "invalid choice: 'much'"),
        (
            "train PAIRS --output new.safetensors --model MODEL --signs minus",
            "signs is 'minus'; choose one of: drawn, both",
        ),
        (
            "train PAIRS --output new.safetensors --model MODEL --token-scope x",
            "token_scope is 'x'; choose one of: all",
        ),
        ("train PAIRS --output new.safetensors --model MODEL --length-weight -1", "length_weight is -1.0"),
        ("train PAIRS --output new.safetensors --model MODEL --l2 nan", "l2 is nan"),
        ("train PAIRS --output new.safetensors --model MODEL --patience 0", "patience is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --effort paper --epochs 200", "schedule_epochs is 100"),
        ("train PAIRS --output new.safetensors --report-to paper", "nothing called 'paper'.*trackio"),
        ("train PAIRS PAIRS --output folder", "Two of the files have the same name"),
        ("train PAIRS WRONG --output folder.safetensors", "several vectors need a folder"),
        ("train PAIRS WRONG --output folder --name n", "--name is for one vector"),
        ("train PAIRS WRONG --output folder --test-pairs PAIRS", "--test-pairs is for one vector"),
        ("train PAIRS WRONG --output folder", "wrong.csv: .*column"),
        ("train PAIRS --output new.safetensors --model MODEL --epochs 0", "epochs is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --learning-rate nan", "learning_rate is nan"),
        ("train PAIRS --output new.safetensors --model MODEL --beta 0", "beta is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --seed 99999999999999999999", "seed is 9+"),
        ("train PAIRS --output new.safetensors --model MODEL --method magic", "no method 'magic'; choose one of: bipo"),
        ("train PAIRS --output new.safetensors --model no/such/folder", "Model 'no/such/folder' cannot be loaded"),
        ("evaluate bold PAIRS", "no vector 'bold' on the shelf"),
        ("evaluate none.safetensors PAIRS", "none.safetensors: there is no such file"),
        ("evaluate PAIRS PAIRS", "pairs.csv: cannot read this kind of file"),
        ("evaluate VECTOR none.csv", "none.csv: there is no such file"),
        ("evaluate VECTOR PAIRS --multipliers=1,nan", "--multipliers: The multiplier nan is not a number"),
        ("evaluate VECTOR PAIRS --multipliers=inf", "--multipliers: The multiplier inf"),
        ("evaluate VECTOR PAIRS --multipliers=1e9", "--multipliers: The multiplier 1e9"),
        ("evaluate VECTOR PAIRS --multipliers=1,x", "--multipliers: The multiplier x"),
        ("evaluate VECTOR PAIRS --multipliers=", "--multipliers: The multiplier '' is not a number"),
        ("evaluate WIDE PAIRS --model MODEL", "'wide' has hidden size 7 but the model tiny has 32"),
        ("evaluate DEEP PAIRS --model MODEL", "'deep' steers layer 9 but the model tiny has only layers 0 to 3"),
        ("generate", "required: --prompt"),
        ("generate --prompt Hi --column bold", "names no multiplier; write it as NAME=1.5"),
        ("generate --prompt Hi --column =1", "no vector '' on the shelf"),
        ("generate --prompt Hi --column VECTOR=", "--column: The multiplier"),
        ("generate --prompt Hi --column VECTOR=nan", "--column: The multiplier nan"),
        ("generate --prompt Hi --column VECTOR=60,VECTOR=60 --model MODEL", "The multiplier 120.0 is not"),
        ("generate --prompt Hi --max-new-tokens 0", "max new tokens is 0"),
        ("generate --prompt Hi --temperature nan", "temperature is nan"),
        ("generate --prompt Hi --seed -1", "seed is -1"),
        ("generate --prompt Hi --top-p 2", "top p is 2.0"),
        ("generate --prompt Hi --weights int3", "invalid choice: 'int3'"),
        ("generate --prompt _ --model MODEL", "The prompt is empty"),
        ("generate --prompt Hi --column WIDE=1 --model MODEL", "hidden size 7"),
        ("generate --prompt Hi --model MODEL" + " --column _" * 17, "17 columns"),
        ("show bold", "no vector 'bold' on the shelf"),
        ("import none.pt", "none.pt: there is no such file"),
        ("import PAIRS", "pairs.csv: cannot read this kind of file"),
        ("import VECTOR --layer 3", "says that it steers layer 1; leave the layer out"),
        ("export VECTOR --output new.safetensors --format gguf", "no format 'gguf'; choose one of: safetensors"),
        ("export VECTOR --output new.txt", "a vector file ends in .safetensors"),
        ("play --port 70000", "'70000' is not a port; give a number from 1 to 65535"),
    ],
)
def test_bad_input_is_told_in_one_line(
    steering, model_folder, pairs_file, vector_file, tmp_path, monkeypatch, command, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    words = {
        "_": " ",
        "PAIRS": pairs_file,
        "WRONG": write_pairs(tmp_path / "wrong.csv", range(3), header="a,b,c"),
        "MODEL": model_folder,
        "VECTOR": vector_file,
        "WIDE": SteeringVector({1: torch.ones(7)}, name="wide").save(tmp_path / "wide.safetensors"),
        "DEEP": SteeringVector({9: torch.ones(32)}, name="deep").save(tmp_path / "deep.safetensors"),
        "FOLDER": tmp_path / "folder",
        "LONG": "x" * 300,
    }
    before = sorted(tmp_path.rglob("*.safetensors"))
    pattern = re.compile("|".join(sorted(words, key=len, reverse=True)))
    steering(*(pattern.sub(lambda found: str(words[found[0]]), word) for word in command.split())).assert_refused(
        message
    )
    assert sorted(tmp_path.rglob("*.safetensors")) == before


def test_a_mistyped_name_gets_a_hint(steering):
    Library().add(vector_of("sunny"))
    steering("generate", "--prompt", "Hi", "--column", "suny=1").assert_refused(r"\(did you mean 'sunny'\?\)")


def test_a_refused_run_makes_no_folder(steering, tmp_path):
    steering("train", tmp_path / "none.csv", "--output", tmp_path / "a" / "b" / "new.safetensors").assert_refused(
        "none"
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("folder", ["a file/data", "~no-such-user/data"])
def test_a_data_folder_that_cannot_be_made(steering, tmp_path, monkeypatch, folder):
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEERING_DATA_DIR", folder)
    steering("list").assert_refused("The folder for your vectors cannot be made .*; set STEERING_DATA_DIR")


def test_a_message_cannot_steer_the_terminal(steering):
    done = steering("train", "pairs.csv", "--output", "a\x1b[31mb\r\nc.pt")
    done.assert_refused("a vector file ends in .safetensors")
    assert "\x1b" not in done.err and "\r" not in done.err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_and_version(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: steering {' '.join(command)}")
    assert all(name in text for name in (["--model", "--json"] if command else COMMANDS))


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"steering {__version__}\n"


def test_what_a_library_prints_does_not_disturb_the_json(steering, monkeypatch):
    def noisy(self: Library) -> list:
        print("loading ...")
        return []

    monkeypatch.setattr(Library, "entries", noisy)
    done = steering("list", "--json")
    assert done.answer == {"vectors": []} and done.err == "loading ...\n"


# As a program ---------------------------------------------------------------------------------------------------------


def test_the_whole_way_as_a_program(model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    done = in_a_process("train", pairs_file, "--output", output, "--model", model_folder, "--epochs", 1, "--json")
    assert list(done.answer) == TRAIN_KEYS
    assert done.err.startswith("Read 10 rows of pairs.csv: 10 pairs kept, none dropped.\nwarning: There are only ")
    columns = ["--column", "", "--column", f"{output}=2", "--max-new-tokens", 2]
    done = in_a_process("generate", "--prompt", "Hi", *columns, "--model", model_folder, "--json")
    assert len(done.answer["columns"]) == 2 and done.err == ""


def test_errors_as_a_program(tmp_path):
    in_a_process().assert_refused("required: COMMAND")
    in_a_process("show", "nobody").assert_refused("There is no vector 'nobody' on the shelf")
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(2)), tmp_path / "script.pt")
    refused = in_a_process("import", tmp_path / "script.pt", "--layer", 1)  # torch warns of such files at length
    refused.assert_refused("script.pt: not a sound .pt file")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_does_not_wait_for_torch(command):
    """Nor, but for `train`, whose options the methods declare, for pydantic."""
    program = (
        "import sys, steering.cli.main\n"
        "try: steering.cli.main.main([*sys.argv[1:], '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'gradio', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    program = [sys.executable, "-c", program, *command]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n['pydantic']\n" if command == ["train"] else "\n[]\n")


def test_a_terminal_that_knows_no_emoji():
    Library().add(vector_of("Grüezi 👋"))
    done = in_a_process("show", "Grüezi 👋", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.status == 0 and "name: Gr\\xfcezi \\U0001f44b\n" in done.out
    done = in_a_process("show", "Grüezi 👋", "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.answer["name"] == "Grüezi 👋"


def test_a_reader_that_went_away():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "steering", "list"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
