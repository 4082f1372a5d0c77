"""Files translated by actors of Ray: the same bytes as in one process, also where an actor or the run is killed."""

import pickle
import sys
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
from command_line import command
from trained_models import TEXTS, tokenizer, trained_model

from crossmask.inference import files
from crossmask.serving import load_translator, ray_translation
from crossmask.serving.ray_translation import RayLines, choose_actors, plan_rows
from crossmask.utils.errors import InputError, MissingLibraryError

main = command("translate")


def starts_ray(test):
    """Marks a test that starts Ray, which warns of its own deprecated names."""
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")(test))


LINES = [*TEXTS, "", " ", "two\tdoors", *reversed(TEXTS)] * 20
QUIET = ("--quiet", "--device", "cpu", "--dtype", "float32", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    trained_model().save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_rows_have_the_lines_of_their_portion(monkeypatch):
    monkeypatch.setattr(files, "PORTION", 4)
    rows = plan_rows(enumerate(files.portions(["a", 'b "\u2028"', "", "\t", "ä"])))
    assert [(row["number"], row["count"]) for row in rows] == [(0, 4), (1, 1)]
    assert files.json.loads(rows[0]["lines"]) == ["a", 'b "\u2028"', "", "\t"]
    assert plan_rows([]) == []


@pytest.mark.parametrize(
    ("wanted", "rows", "needs", "resources", "actors"),
    [
        (None, 9, {"num_cpus": 1}, {"CPU": 4}, 4),
        (None, 3, {"num_cpus": 1}, {"CPU": 4}, 3),
        (None, 9, {"num_cpus": 3}, {"CPU": 8}, 2),
        (2, 9, {"num_cpus": 1}, {"CPU": 4}, 2),
        (None, 9, {"num_cpus": 1, "num_gpus": 1}, {"CPU": 64, "GPU": 2}, 2),
        (5, 9, {"num_cpus": 1}, {"CPU": 4}, "at most 4, since the cluster has num_cpus=4 and each needs num_cpus=1"),
        (None, 9, {"num_cpus": 8}, {"CPU": 4}, "actors must be at most 0, .* lower actors or threads"),
        (None, 9, {"num_cpus": 1, "num_gpus": 1}, {"CPU": 4}, "num_cpus=4 and num_gpus=0 and each needs"),
    ],
)
def test_actors_are_those_that_the_cluster_has_resources_for(wanted, rows, needs, resources, actors):
    if isinstance(actors, int):
        assert choose_actors(wanted, rows, needs, resources) == actors
        return
    with pytest.raises(InputError, match=actors):
        choose_actors(wanted, rows, needs, resources)


def test_without_ray_its_command_is_named(folder, lines, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main([str(folder), str(lines), "--ray", *QUIET]) == 2
    assert (
        "ray must be installed to translate on a cluster; run: pip install 'crossmask[ray]'" in capsys.readouterr().err
    )
    with load_translator(folder, device="cpu", dtype="float32") as translator:
        one = files.LineTranslator(translator, max_source_length=64)
        with pytest.raises(MissingLibraryError, match=r"crossmask\[ray\]"):
            RayLines(one, {"model": folder})


def test_actors_without_ray_are_refused(folder, lines, capsys):
    assert main([str(folder), str(lines), "--ray-actors", "2", *QUIET]) == 2
    assert "--ray-actors must come with --ray, without which it does nothing" in capsys.readouterr().err


class Table(list):
    """Rows as a batch of pyarrow gives them."""

    def to_pylist(self):
        return list(self)


class InThisProcess:
    """The parts of Ray that are used, with actors in this process, whose results come in the opposite order unless
    order is asked for."""

    def __init__(self):
        context = SimpleNamespace(execution_options=SimpleNamespace(preserve_order=False))
        self.actors, self.context = 0, context
        self.data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=lambda: context),
            ActorPoolStrategy=lambda size: size,
            from_items=lambda rows, override_num_blocks: SimpleNamespace(map=partial(self._map, rows)),
        )

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 3.0}

    def _map(self, rows, actor, fn_constructor_args, compute, num_cpus):
        self.actors = compute
        pool = [actor(*pickle.loads(pickle.dumps(fn_constructor_args))) for _ in range(compute)]
        order = rows if self.context.execution_options.preserve_order else rows[::-1]
        results = (Table([pool[index % compute](dict(row))]) for index, row in enumerate(order))
        return SimpleNamespace(iter_batches=lambda batch_size, prefetch_batches, batch_format: results)


@pytest.fixture
def stand_in(monkeypatch):
    ray = InThisProcess()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    return ray


def test_portions_in_any_order_are_the_file_of_one_process(stand_in, folder, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PORTION", 400)
    monkeypatch.chdir(folder.parent)
    wanted = expected(folder, lines, tmp_path, "--pairs")
    arguments = [folder.name, str(lines), "--ray", "--pairs", *QUIET]
    assert main([*arguments, "-o", str(tmp_path / "many")]) == 0
    assert (tmp_path / "many").read_bytes() == wanted
    assert stand_in.actors == 3
    capsys.readouterr()
    assert main([*arguments, "--ray-actors", "2"]) == 0
    assert capsys.readouterr().out.encode() == wanted
    assert stand_in.actors == 2


@pytest.mark.parametrize("to_file", [True, False])
def test_the_driver_holds_a_limited_number_of_portions(
    stand_in, folder, lines, tmp_path, monkeypatch, capsys, to_file
):
    monkeypatch.setattr(files, "PORTION", 100)
    monkeypatch.setattr(ray_translation, "ROWS", 3)
    wanted = expected(folder, lines, tmp_path)
    capsys.readouterr()
    held = []

    def plan(numbered):
        rows = plan_rows(numbered)
        held.append(len(rows))
        return rows

    monkeypatch.setattr(ray_translation, "plan_rows", plan)
    many = tmp_path / "many"
    output = ["-o", str(many)] if to_file else []
    assert main([str(folder), str(lines), "--ray", *QUIET, *output]) == 0
    assert (many.read_bytes() if to_file else capsys.readouterr().out.encode()) == wanted
    assert held == [3, 3, 3, 3, 3, 0]


def test_what_an_actor_cannot_do_is_one_line(stand_in, folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "long.txt"
    path.write_text("\n".join([*TEXTS, "dog " * 90]))
    assert main([str(folder), str(path), "--ray", *QUIET]) == 2
    assert "line 37 must have at most 64 tokens" in capsys.readouterr().err.splitlines()[-1]
    assert main([str(folder), str(path), "--ray", "--ray-actors", "9", *QUIET]) == 2
    assert "actors must be at most 3" in capsys.readouterr().err
    calls = iter([{"weights": "a"}, {"weights": "b"}])
    monkeypatch.setattr(files.LineTranslator, "digests", lambda self: next(calls))
    assert main([str(folder), str(path), "--ray", *QUIET]) == 2
    assert "must be the same model on every machine, got another on" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with two processors to give."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'crossmask[ray]'")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def expected(folder, lines, tmp_path, *options) -> bytes:
    assert main([str(folder), str(lines), "-o", str(tmp_path / "one"), *options, *QUIET]) == 0
    return (tmp_path / "one").read_bytes()


@starts_ray
@pytest.mark.parametrize("options", [(), ("--num-beams", "3", "--pairs"), ("--sample", "--seed", "4")])
def test_actors_write_what_one_process_writes(cluster, folder, lines, tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr(files, "PORTION", 100)
    wanted = expected(folder, lines, tmp_path, *options)
    ray = [str(folder), str(lines), "--ray", "--ray-actors", "2", *options, *QUIET]
    assert main([*ray, "-o", str(tmp_path / "many")]) == 0
    assert (tmp_path / "many").read_bytes() == wanted
    capsys.readouterr()
    assert main(ray) == 0
    assert capsys.readouterr().out.encode() == wanted


@starts_ray
def test_a_run_that_was_stopped_goes_on_with_ray_or_without(cluster, folder, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PORTION", 100)
    wanted = expected(folder, lines, tmp_path)
    write, written = files.write_bytes, []

    def stop_at(count, path, data):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(path.name.partition("-")[0])
        write(path, data)

    arguments = [str(folder), str(lines), "-o", str(tmp_path / "out"), *QUIET]
    for count, ray in ((2, ["--ray"]), (5, []), (99, ["--ray", "--ray-actors", "1"])):
        monkeypatch.setattr(files, "write_bytes", partial(stop_at, count))
        assert main([*arguments, *ray]) == (130 if count < 99 else 0)
    assert sorted(written) == [f"{number:06}" for number in range(-(-len(LINES) // 100))]
    assert (tmp_path / "out").read_bytes() == wanted


@starts_ray
def test_an_actor_that_is_killed_loses_nothing(cluster, folder, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PORTION", 10)
    wanted = expected(folder, lines, tmp_path)
    write, killed = files.write_bytes, []

    def kill_one(path, data):
        write(path, data)
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if any("_Actor" in part for part in process.cmdline())
        ]
        if len(killed) < 2 and workers:
            workers[0].kill()
            killed.append(workers[0].pid)

    monkeypatch.setattr(files, "write_bytes", kill_one)
    assert main([str(folder), str(lines), "--ray", "-o", str(tmp_path / "many"), *QUIET]) == 0
    assert len(killed) == 2
    assert (tmp_path / "many").read_bytes() == wanted


@starts_ray
def test_what_actors_refuse_is_one_line(cluster, folder, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("\n".join([*TEXTS, "dog " * 90]))
    assert main([str(folder), str(path), "--ray", *QUIET]) == 2
    assert "line 37 must have at most 64 tokens" in capsys.readouterr().err.splitlines()[-1]
    assert main([str(folder), str(path), "--ray", "--ray-actors", "9", *QUIET]) == 2
    assert "actors must be at most 2" in capsys.readouterr().err
