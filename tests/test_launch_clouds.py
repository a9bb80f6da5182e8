"""Launchers of TPU VMs, SkyPilot and Kubernetes, and the page that tells of all, against stand-ins for programs."""

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from launch_place import ROOT, STUDY, Place, made_place, refused

README = (ROOT / "launch" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return made_place(tmp_path)


# On a TPU VM.

VM = ["--name=regions", "--zone=us-west4-a"]
ALL = ["launch/tpu_vm.sh", "all", *VM]
ACTIVE = ("queued-resources describe", "ACTIVE", 0)


def in_order(place: Place) -> list[list[str]]:
    return [json.loads(line)["words"] for line in place.calls_file.read_text().splitlines()]


@pytest.mark.parametrize("options", [[], ["--spot"], ["--queued", "--spot"], ["--keep", "--accelerator=v5litepod-4"]])
def test_a_dry_run_prints_what_a_run_calls(place: Place, options: list[str]) -> None:
    words = ["task_clusters", "--preset=smoke", "--datasets=a b;c", "--shelf=gs://bucket/shelf"]
    dry = place.run(*ALL, *options, "--dry_run", *words)
    assert dry.returncode == 0, dry.stderr
    assert not place.calls_file.exists()
    assert not (place.path / "runs").exists()
    printed = [shlex.split(line) for line in dry.stdout.splitlines()]
    done = place.run(*ALL, *options, *words, answers=[ACTIVE])
    assert done.returncode == 0, done.stderr
    assert [call for call in printed if call[0] != "mkdir"] == in_order(place)
    assert (place.path / "runs/regions").is_dir()


def test_the_whole_of_a_run(place: Place) -> None:
    assert place.run(*ALL, "--spot", "task_clusters", "--shelf=gs://b/s").returncode == 0
    told, archive = place.calls("gcloud"), place.calls("git")
    assert archive == [["archive", "--format=tar.gz", "--output=runs/wsr.tar.gz", "HEAD"]]
    assert all(call[:2] == ["compute", "tpus"] and call[-2:] == ["--zone=us-west4-a", "--quiet"] for call in told)
    made, sent, installed, shares, finished, fetched, deleted = (call[2:-2] for call in told)
    machine = ["--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite", "--spot"]
    assert made == ["tpu-vm", "create", "regions", *machine]
    assert sent == ["tpu-vm", "scp", "runs/wsr.tar.gz", "regions:", "--worker=all"]
    assert installed[:4] == ["tpu-vm", "ssh", "regions", "--worker=all"]
    assert "EXTRAS=tpu,gcs" in installed[4]
    assert shares[:4] == ["tpu-vm", "ssh", "regions", "--worker=all"]
    assert finished[:4] == ["tpu-vm", "ssh", "regions", "--worker=0"]
    assert fetched == ["tpu-vm", "scp", "--recurse", "regions:wsr/runs", "runs/regions", "--worker=0"]
    assert deleted == ["tpu-vm", "delete", "regions"]


@pytest.mark.parametrize(("workers", "count", "bounds"), [("a:1:b", "1", ""), ("a:1:b,a:2:c,a:3:d", "3", "1,1,1")])
def test_each_worker_runs_its_own_share(place: Place, tmp_path: Path, workers: str, count: str, bounds: str) -> None:
    """What is said to the machine is run by a shell, as there."""
    place.run("launch/tpu_vm.sh", "run", *VM, "task_clusters", "--datasets=a b;c")
    commands = [call[-3].removeprefix("--command=") for call in place.calls("gcloud")]
    (tmp_path / "wsr").symlink_to(place.path)
    python = place.path / ".venv/bin/python"
    python.write_text(f'#!/bin/bash\nprintf "%s\\n" "$TPU_PROCESS_BOUNDS" "$@" >> {tmp_path / "ran"}\n')
    for command in commands:
        answers = [("worker-network-endpoints", workers, 0), ("agent-worker-number", "2", 0)]
        environment = place.environment | {"ANSWERS": json.dumps(answers)}
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
    study = [bounds, *STUDY, "--datasets=a b;c"]
    assert (tmp_path / "ran").read_text().splitlines() == [*study, "--run=share", f"--share=2/{count}", *study]


STEPS = ["queue", "describe", "archive", "scp", "install", "shares", "finish", "fetch", "delete"]


@pytest.mark.fault
@pytest.mark.parametrize("fails", range(1, len(STEPS) + 1), ids=STEPS)
@pytest.mark.parametrize("option", [[], ["--delete_on_failure"]], ids=["named", "deleted"])
def test_no_machine_is_forgotten(place: Place, fails: int, option: list[str]) -> None:
    words = [*ALL, "--queued", *option, "task_clusters"]
    done = place.run(*words, answers=[ACTIVE], FAIL_AT=str(fails))
    assert done.returncode != 0
    calls = in_order(place)
    deletes = [call for call in calls if call[4:5] == ["delete"]]
    named = "regions in us-west4-a may exist, and then it costs money" in done.stderr
    if option:
        assert calls[-1] == deletes[-1]
        assert len(calls) == fails + 1
        assert not named
        assert "regions was deleted" in done.stderr
    else:
        assert len(calls) == fails
        assert named
        command = re.search(r"to delete it: (.*)", done.stderr)
        assert command
        assert place.run(*shlex.split(command[1])).returncode == 0
        assert in_order(place) == [
            shlex.split("gcloud compute tpus queued-resources delete regions --force --zone=us-west4-a --quiet")
        ]


def test_a_machine_that_cannot_be_deleted_is_named(place: Place) -> None:
    done = place.run(*ALL, "--delete_on_failure", "task_clusters", answers=[("tpu-vm ssh", "", 1), ("delete", "", 1)])
    assert done.returncode == 1
    assert "may exist, and then it costs money" in done.stderr


LOST = [("experiments", "", 255), ("experiments", "", 0), ("tpu-vm describe", "PREEMPTED", 0)]


@pytest.mark.fault
def test_a_lost_machine_is_replaced_and_the_same_command_goes_on(place: Place) -> None:
    done = place.run(*ALL, "--spot", "task_clusters", "--shelf=gs://b/s", answers=LOST)
    assert done.returncode == 0, done.stderr
    steps = [call[3:4] for call in place.calls("gcloud")]
    again = [["create"], ["scp"], ["ssh"], ["ssh"]]
    assert steps == [*again, ["describe"], ["delete"], *again, ["ssh"], ["scp"], ["delete"]]


@pytest.mark.parametrize(
    ("options", "state"), [(["--spot"], "READY"), ([], "PREEMPTED"), (["--spot", "--restarts=0"], "PREEMPTED")]
)
def test_a_failure_of_its_own_is_not_tried_again(place: Place, options: list[str], state: str) -> None:
    answers = [("experiments", "", 1), ("tpu-vm describe", state, 0)]
    done = place.run(*ALL, *options, "task_clusters", answers=answers)
    assert done.returncode == 1
    assert sum(call[3] == "create" for call in place.calls("gcloud")) == 1


def test_a_lost_machine_is_replaced_so_often_and_no_more(place: Place) -> None:
    done = place.run(*ALL, "--spot", "--restarts=2", "task_clusters", answers=[LOST[0], LOST[2]])
    assert done.returncode == 1
    assert sum(call[3] == "create" for call in place.calls("gcloud")) == 3
    assert "what a lost machine had trained is lost" in done.stderr


def test_the_queue_is_waited_for_and_its_refusal_is_told(place: Place) -> None:
    waits = [("describe", state, 0) for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")]
    create = ["launch/tpu_vm.sh", "create", *VM, "--queued"]
    assert place.run(*create, answers=waits, WSR_POLL_SECONDS="0").returncode == 0
    assert len(place.calls("gcloud")) == 4
    done = place.run(*create, answers=[("describe", "FAILED", 0)], WSR_POLL_SECONDS="0")
    assert done.returncode == 1
    assert "the queue says FAILED of regions" in done.stderr
    assert "may exist" in done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "usage: launch/tpu_vm.sh all|create"),
        (["start", *VM], "usage"),
        (["create", "--name=my regions", VM[1]], "--name=my regions: expected small letters"),
        (["create", "--name=a;ls", VM[1]], "--name=a;ls: expected"),
        (["create", "--name=-x", VM[1]], "--name=-x: expected"),
        (["create", VM[0]], "--zone=: expected"),
        (["delete", VM[0], "--zone=$(ls)"], "--zone=$(ls): expected"),
        (["create", *VM, "--runtime=a b"], "--runtime=a b: expected"),
        (["create", *VM, "--preset=smoke"], "unknown option --preset=smoke; options of this script come before"),
        (["create", *VM, "task_clusters"], "create takes no EXPERIMENT"),
        (["run", *VM], "which EXPERIMENT?"),
        (["all", *VM, "../x"], "no experiments/../x.py"),
        (["all", *VM, "--restarts=x", "task_clusters"], "--restarts=x: expected a number"),
    ],
)
def test_tpu_vm_refuses_in_one_line(place: Place, words: list[str], line: str) -> None:
    refused(place, ["launch/tpu_vm.sh", *words], line)


def test_without_gcloud(place: Place) -> None:
    refused(place, [*ALL, "task_clusters"], "gcloud was not found", PATH=place.environment["PATH"].split(":")[1])


# SkyPilot and Kubernetes.


def shell(place: Place, script: str, **variables: str) -> list[list[str]]:
    """Runs ``script`` as the machine there does, and returns how Python was called."""
    done = place.run("bash", "-c", script, **variables)
    assert done.returncode == 0, done.stderr
    return place.calls("python")


def test_the_job_of_skypilot(place: Place) -> None:
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["accelerators"] == "tpu-v5litepod-8"
    assert task["envs"] == {"BUCKET": None, "EXPERIMENT": None, "FLAGS": ""}
    assert task["file_mounts"] == {"/results": {"source": "gs://${BUCKET}", "mode": "MOUNT"}}
    assert "EXTRAS=tpu,gcs" in task["setup"]
    variables = {"BUCKET": "b", "EXPERIMENT": "task_clusters", "FLAGS": "--preset=smoke --seed=2"}
    own = ["--out=/results/task_clusters", "--shelf=gs://b/shelf", "--preset=smoke", "--seed=2"]
    assert shell(place, task["run"], **variables) == [[*STUDY, "--run=share", *own]]


def test_the_jobs_of_kubernetes(place: Place) -> None:
    example = next(block for block in blocks("sh") if "kubectl" in block)
    place.run("bash", "-ec", example)
    [line] = [json.loads(line) for line in place.calls_file.read_text().splitlines()]
    assert line["words"] == ["kubectl", "apply", "-f", "-"]
    jobs = yaml.safe_load(line["piped"])
    assert (jobs["apiVersion"], jobs["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    shares, finish = jobs["spec"]["replicatedJobs"]
    assert finish["dependsOn"] == [{"name": shares["name"], "status": "Complete"}]
    job, last = shares["template"]["spec"], finish["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget"}]
    own = ["--out=/results/task_clusters", "--shelf=gs://my-bucket/shelf", "--preset=paper"]
    for spec, words in ((job, [*STUDY, "--run=share", *own]), (last, [*STUDY, *own])):
        assert spec["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
        assert pod["volumes"][0]["csi"]["volumeAttributes"] == {"bucketName": "my-bucket"}
        [container] = pod["containers"]
        assert container["image"] == "us-docker.pkg.dev/PROJECT/REPOSITORY/wsr"
        assert container["resources"] == {"limits": {"google.com/tpu": "8"}}
        assert container["env"] == [{"name": "WSR_SHARES", "value": str(job["completions"])}]
        assert job["parallelism"] == job["completions"]
        assert container["command"][:2] == ["bash", "-c"]
        assert shell(place, container["command"][2]) == [words]


# What the README tells to type.


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_command_of_the_readme_runs(place: Place, block: str) -> None:
    done = place.run("bash", "-ec", block, answers=[("--parsable", "77", 0)])
    assert done.returncode == 0, done.stderr
    if "sbatch" in block:
        first, second = place.calls("sbatch")
        assert first[:3] == ["--parsable", "launch/slurm.sbatch", "task_clusters"]
        assert second[0] == "--dependency=afterok:77"
        assert second[-1] == "--run=here"
    if "sky" in block:
        [call] = place.calls("sky")
        assert call[:2] == ["jobs", "launch"]
        assert "launch/skypilot.yaml" in call
        given = {word.split("=", 1)[0] for flag, word in pairwise(call) if flag == "--env"}
        assert given == set(yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())["envs"])


def test_the_readme_names_every_launcher_and_every_variable() -> None:
    files = [path for path in (ROOT / "launch").iterdir() if path.name != "README.md"]
    assert all(f"`{path.name}`" in README for path in files)
    read = set().union(*(re.findall(r"WSR_[A-Z_]+", path.read_text()) for path in files))
    assert all(f"`{variable}`" in README for variable in read)
