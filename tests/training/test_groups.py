"""Signals fitted in groups of partitions, and by several ranks (law 9)."""

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.representation.rows import CODECS
from lgsirens.training import groups
from lgsirens.training.checkpoint import claimed
from lgsirens.training.config import EncodeConfig, plan
from tests.grouped import OPTIONS, Counting, Stop, in_groups, picture, rows_of
from tests.ranks import on_ranks
from tests.small import contents, without_times


@pytest.fixture
def grouped(monkeypatch):
    in_groups(monkeypatch)


def same(one, other):
    """What two fits have found, but for when, how fast and by how many."""
    found = [contents(inr) for inr in (one, other)]
    for plain in found:
        for entry in plain["history"]:
            entry.pop("date")
        plain["fit"] |= {"seconds": 0, "device": ""}
    return found[0] == found[1]


@given(
    st.tuples(st.integers(9, 70), st.integers(9, 70)),
    st.integers(1, 12),
    st.integers(2, 4),
    st.sampled_from(["auto", "eager"]),
    st.sampled_from(["lg", "lc"]),
)
@settings(max_examples=8, deadline=None)
def test_any_number_of_ranks_finds_the_same_rows_of_groups(shape, partitions, size, kernel, mode):
    signal = picture(shape)
    options = OPTIONS | {"kernel": kernel, "mode": mode, "global_width": 6 if mode == "lg" else None}
    shared_from = None
    if mode == "lg":
        options = {"kernel": kernel, "steps": 8}
        shared_from = lg.encode(picture((24, 24), seed=1), **OPTIONS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_groups(monkeypatch, partitions)
        alone = lg.encode(signal, shared_from=shared_from, **options)
        for inr in on_ranks(size, lambda ranks: lg.encode(signal, shared_from=shared_from, ranks=ranks, **options)):
            assert same(inr, alone)
    assert alone.fit.psnr == pytest.approx(lg.psnr(signal, alone.decode()), abs=1e-4)


@given(
    st.tuples(st.integers(17, 70), st.integers(17, 70)),
    st.integers(2, 4),
    st.sampled_from(["auto", "eager"]),
    st.integers(0, 1),
)
@settings(max_examples=12, deadline=None)
def test_ranks_find_the_same_rows_where_the_shared_network_stands(shape, size, kernel, halo):
    """Exactly by the fused kernel; PyTorch's batched products round otherwise in batches of other sizes."""
    signal, shared_from = picture(shape), lg.encode(picture((24, 24), seed=1), **OPTIONS, overlaps=(halo, halo))
    alone = lg.encode(signal, shared_from=shared_from, steps=12, kernel=kernel)
    for inr in on_ranks(size, lambda r: lg.encode(signal, shared_from=shared_from, steps=12, kernel=kernel, ranks=r)):
        if alone.fit.device == "cpu, eager":
            torch.testing.assert_close(rows_of(inr), rows_of(alone), rtol=0, atol=0.02)
        else:
            assert same(inr, alone)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kernel", ["auto", "eager"])
@pytest.mark.parametrize(("recipe", "tolerance", "decibels"), [("fast", 0.02, 0.1), ("paper", 1e-6, 1e-4)])
def test_ranks_find_nearly_the_same_where_the_shared_network_learns(size, kernel, recipe, tolerance, decibels):
    """Sums round otherwise, as with another number of threads; Adam hardly minds, SOAP's bases turn with it."""
    signal, options = picture((40, 52)), OPTIONS | {"kernel": kernel, "recipe": recipe}
    alone = lg.encode(signal, **options)
    for inr in on_ranks(size, lambda ranks: lg.encode(signal, ranks=ranks, **options)):
        torch.testing.assert_close(rows_of(inr), rows_of(alone), rtol=0, atol=tolerance)
        assert inr.fit.psnr == pytest.approx(alone.fit.psnr, abs=decibels)


def test_more_ranks_than_partitions_are_an_error_on_every_rank():
    with pytest.raises(lg.ConfigError, match="4 ranks: more than the 2 partitions"):
        on_ranks(4, lambda ranks: lg.encode(picture((8, 16)), ranks=ranks, **OPTIONS))


@pytest.mark.parametrize("where", [{}, {"checkpoint": "x.checkpoint.safetensors"}])
def test_ranks_stop_together_when_their_seconds_are_over(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    options = OPTIONS | {"steps": None, "seconds": 1.5}
    inrs = on_ranks(3, lambda ranks: lg.encode(picture((50, 40)), ranks=ranks, **where, **options))
    assert {inr.fit.stopped for inr in inrs} == {"seconds"}
    assert len({inr.lineage for inr in inrs}) == 1


def said(work):
    """How many of two ranks tell of an error that both have."""

    def tried(ranks):
        try:
            work(ranks)
        except lg.LgsirensError as error:
            return str(error), error.told
        return None

    (first, told), (second, also_told) = on_ranks(2, tried)
    assert first == second
    return (told, also_told).count(False)


def test_what_all_ranks_fail_with_is_told_once(tmp_path):
    signal, log = picture((40, 52)), lg.RunLog(tmp_path / "log")
    assert said(lambda ranks: lg.encode(signal, ranks=ranks, **OPTIONS | {"lr": 1e30, "recipe": "adam"})) == 1
    assert said(lambda ranks: lg.encode(signal, ranks=ranks, log=log, **OPTIONS)) == 1
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", signal.values)
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out" / "manifest") as free:
        assert free
        assert said(lambda ranks: lg.encode_many(tmp_path / "in", tmp_path / "out", ranks=ranks, **OPTIONS)) == 1


def test_values_beyond_the_range_are_counted_by_all_ranks_and_told_once(caplog):
    signal = lg.Signal.from_array(np.asarray(picture((40, 52)).values).astype(np.float32), value_range=(0.0, 100.0))
    beyond = int((np.asarray(signal.values) > 100).sum())
    on_ranks(3, lambda ranks: lg.encode(signal, ranks=ranks, **OPTIONS))
    told = [record.getMessage() for record in caplog.records if "beyond it" in record.getMessage()]
    assert told == [f"value_range: {beyond} of 6240 values are beyond it, and decode to its ends, 0 and 100"]


def test_rows_of_one_rank_may_all_be_at_rest():
    values = np.asarray(picture((48, 64)).values).copy()
    values[:24] = 90  # the first rank's half is flat
    signal, options = lg.Signal.from_array(values), OPTIONS | {"steps": 400, "target_psnr": 27.0}
    for kernel in ("auto", "eager"):
        found = on_ranks(2, lambda ranks: lg.encode(signal, ranks=ranks, **options, kernel=kernel))  # noqa: B023
        assert {inr.fit.stopped for inr in found} == {"target_psnr"}


def test_groups_replace_no_checkpoint_of_another_fit(tmp_path, monkeypatch):
    signal, path = picture((50, 40)), tmp_path / "x.checkpoint.safetensors"
    shared_from = lg.encode(picture((24, 24), seed=1), **OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr("lgsirens.training.loop.SECONDS_BETWEEN_CHECKPOINTS", 0)
        lg.encode(signal, shared_from=shared_from, steps=5, checkpoint=path)
    before = path.read_bytes()
    in_groups(monkeypatch)
    with pytest.raises(lg.FileFormatError, match="belongs to another"):
        lg.encode(signal, shared_from=shared_from, steps=5, checkpoint=path, resume=True)
    assert path.read_bytes() == before


def test_the_same_seed_and_number_of_ranks_make_the_same_file(tmp_path, grouped):
    signal = picture((50, 40))
    for name in ("a", "b"):
        inrs = on_ranks(3, lambda ranks: lg.encode(signal, ranks=ranks, **OPTIONS))
        inrs[0].save(tmp_path / f"{name}.safetensors")
    assert without_times(tmp_path / "a.safetensors") == without_times(tmp_path / "b.safetensors")


@pytest.mark.parametrize("damage", [None, "local", "row_errors", "overview", "row_steps", "row_ending"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_stopped_fit_goes_on_and_ends_in_the_same_rows(tmp_path, monkeypatch, grouped, size, damage):
    signal, path = picture((50, 70)), tmp_path / "x.checkpoint.safetensors"
    expected = lg.encode(signal, **OPTIONS)
    Stop.left = 2
    with monkeypatch.context() as patched:
        patched.setattr("lgsirens.training.encode.GroupFit", Stop)
        with pytest.raises(KeyboardInterrupt):
            lg.encode(signal, checkpoint=path, **OPTIONS)
    done = groups.RowFile(path, CODECS["float32"]).finished()
    assert 0 < done.sum() < len(done)
    if damage:  # of a row that was finished: it is fitted again
        content = bytearray(path.read_bytes())
        length = int.from_bytes(content[:8], "little")
        start, stop = json.loads(content[8 : 8 + length])[damage]["data_offsets"]
        content[8 + length + start + (stop - start) // len(done) * int(np.flatnonzero(done)[0])] ^= 1
        path.write_bytes(content)
        assert groups.RowFile(path, CODECS["float32"]).finished().sum() == done.sum() - 1
    for inr in on_ranks(size, lambda ranks: lg.encode(signal, checkpoint=path, resume=True, ranks=ranks, **OPTIONS)):
        assert same(inr, expected)


def test_a_checkpoint_of_groups_is_of_no_other_run(tmp_path, grouped):
    signal, path = picture((50, 70)), tmp_path / "x.checkpoint.safetensors"
    lg.encode(signal, checkpoint=path, **OPTIONS)
    with pytest.raises(lg.FileFormatError, match="belongs to another input"):
        lg.encode(signal, checkpoint=path, resume=True, **OPTIONS | {"seed": 1})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(lg.FileFormatError, match="damaged checkpoint"):
        lg.encode(signal, checkpoint=path, resume=True, **OPTIONS)


def test_of_a_large_signal_little_is_held_at_a_time(grouped):
    """A group's samples, with their halos, once to fit and once to measure them, beside those that the shared network
    is learnt from."""
    values = np.asarray(picture((160, 200)).values)
    source = Counting(values)
    inr = lg.encode(source, **OPTIONS)
    assert same(inr, lg.encode(lg.Signal.from_array(values), **OPTIONS))
    assert source.largest <= values.size / 4
    assert source.total < 5 * values.size


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_groups_are_boxes_that_are_not_too_large(ids, partitions):
    planned = plan(picture((24, 24)), EncodeConfig(**OPTIONS))
    lattice = replace(planned.lattice, ids=np.array(sorted(set(ids)), dtype=np.int32))
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_groups(monkeypatch, partitions)
        found = groups._groups(replace(planned, lattice=lattice), 3)
    assert sorted(itertools.chain.from_iterable(found)) == list(range(len(lattice)))
    for places in found:
        assert (np.diff(places) > 0).all()
        assert (np.ptp(lattice.ids[places], axis=0) + 1).prod() <= partitions


def test_a_strip_along_two_sides_is_of_few_groups(grouped, monkeypatch):
    in_groups(monkeypatch, 100)
    planned = plan(picture((400, 400)), EncodeConfig(**OPTIONS))
    corner = planned.lattice.select(np.flatnonzero((planned.lattice.ids == 49).any(axis=1)))
    assert len(groups._groups(replace(planned, lattice=corner), 3)) == 2


def test_what_cannot_be_in_groups_says_so():
    signal = picture((40, 40))
    for options in ({"mode": "mlp", "global_width": None, "local_width": 9}, {"recipe": "paper", **OPTIONS}):
        with pytest.raises(lg.ConfigError, match="max_memory .*learns from all samples at once"):
            lg.encode(signal, max_memory=10_000, **options)
    with pytest.raises(lg.ConfigError, match="max_memory .*below one group; give at least"):
        lg.encode(signal, max_memory=10_000, **OPTIONS)


# Of each worker of pytest its own: a port that is asked for and let go may be another's a moment later.
PORTS = itertools.count(21_000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))


def run_ranks(size, *arguments, each=lambda rank: (), program=("-m", "lgsirens")):
    """The command, or another program, by so many processes that torchrun would start; exit codes and what they say."""
    port = next(PORTS)
    common = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *map(str, arguments), *map(str, each(rank))],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    ended = [process.communicate(timeout=120) for process in processes]
    return [process.returncode for process in processes], [out for out, _ in ended], [error for _, error in ended]


@pytest.mark.parametrize("own", ["", "; d.destroy_process_group()"])
def test_a_process_ends_without_the_threads_by_which_ranks_exchange(own):
    """They may end it by SIGABRT else."""
    program = "import atexit, torch.distributed as d; atexit.register(lambda: print(d.is_initialized()))\n"
    program += "from lgsirens.training.ranks import ranks_of_environment; print(ranks_of_environment().size)" + own
    codes, told, errors = run_ranks(2, program=("-c", program))
    assert (codes, told, errors) == ([0, 0], ["2\nFalse\n"] * 2, ["", ""])


SMALL = ("--partition_size", "16,16", "--local_width", 5, "--global_width", 6, "--steps", 10)


def test_processes_fit_a_picture_together(tmp_path):
    lg.write(tmp_path / "a.png", picture((64, 80)))
    output = tmp_path / "a.safetensors"
    codes, told, _ = run_ranks(2, "encode", tmp_path / "a.png", output, *SMALL)
    assert codes == [0, 0]
    assert told[0].count("\n") == 1
    assert told[1] == ""
    inr = lg.load(output)
    assert inr.fit.device.endswith("2 ranks")
    assert lg.psnr(lg.read(tmp_path / "a.png"), inr.decode()) == pytest.approx(inr.fit.psnr, abs=1e-3)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".safetensors"] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "each", "message"),
    [
        (("a.png", "b.safetensors"), lambda rank: ("--partition_size", "80,80"), "2 ranks: more than"),
        (("missing.png", "b.safetensors"), lambda rank: (), "missing.png: "),
        (("a.png", "b.safetensors"), lambda rank: ("--steps", 10 + rank), "has steps"),
        (("a.png", "nowhere/b.safetensors"), lambda rank: (), "does not exist"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path, monkeypatch, arguments, each, message):
    monkeypatch.chdir(tmp_path)
    lg.write(tmp_path / "a.png", picture((64, 80)))
    codes, _, errors = run_ranks(2, "encode", *arguments, *SMALL[:-2], each=each)
    assert codes == [2, 2]
    assert "".join(errors).count("lgsirens: ") == 1
    assert message in errors[0]


def test_processes_decode_to_one_zarr(tmp_path):
    inr = lg.encode(picture((64, 80)), **OPTIONS)
    inr.save(tmp_path / "a.safetensors")
    command = ("decode", tmp_path / "a.safetensors")
    codes, told, _ = run_ranks(3, *command, tmp_path / "a.zarr", "--scale", "9")
    assert (codes, [out.count("\n") for out in told]) == ([0, 0, 0], [1, 0, 0])
    expected = np.rint(np.asarray(inr.decode(scale=9).values))
    np.testing.assert_array_equal(np.asarray(lg.read(tmp_path / "a.zarr").values), expected)
    codes, _, errors = run_ranks(2, *command, tmp_path / "a.png")
    assert codes == [2, 2]
    assert "".join(errors).count("lgsirens: ") == 1
    assert "several ranks write a Zarr array" in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "a.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_rank_is_started_again_and_the_rows_are_the_same(tmp_path, victim):
    """By torchrun's elastic restart; also by hand, with another number of ranks."""
    lg.write(tmp_path / "a.png", picture((1800, 1800)))
    fit = ("--steps", "25", "--max_memory", "140MB", "--partition_size", "16,16", "--local_width", "6")
    fit += ("--global_width", "16")
    whole, output = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--max_restarts", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = ["-m", "lgsirens", "encode", str(tmp_path / "a.png")]
    subprocess.run([*command, *asked, str(whole), *fit], env=environment, check=True, capture_output=True)
    running = subprocess.Popen([*command, *asked, str(output), *fit, "--resume"], env=environment)
    killed = False
    while running.poll() is None:
        kept = tmp_path / "a.checkpoint.safetensors"
        if not killed and kept.exists() and kept.stat().st_size > 1 << 20:
            ranks = [process for process in psutil.Process(running.pid).children() if process.is_running()]
            named = {process.environ().get("RANK"): process for process in ranks}
            named[victim].kill()
            killed = True
        time.sleep(0.05)
    assert killed
    assert running.returncode == 0
    assert torch.equal(rows_of(lg.load(output)), rows_of(lg.load(whole)))
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == []
