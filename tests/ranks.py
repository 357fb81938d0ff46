"""Real processes that train together, for tests: each runs `work` and leaves a file."""

import multiprocessing
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bm import distrib
from bm.build import build_solver
from bm.config import from_hydra
from bm.segments import SegmentLoader
from bm.solver import Solver
from bm.train import main

TIMEOUT = 250.0


def build(overrides: Sequence[str]) -> Solver:
    """Solver of an experiment, before its first step."""
    torch.set_num_threads(1)
    return build_solver(from_hydra(main.get_xp(list(overrides)).cfg))


def step(solver: Solver) -> dict[str, Any]:
    """Train for the batches of one epoch; loss, gradients of the last step, and state after it."""
    torch.manual_seed(7)
    loss = solver._train(0)["loss"]
    return {"loss": loss, "gradients": gradients(solver), "state": solver.models.state_dict()}


def step_on_share(solver: Solver, rank: int, n_ranks: int) -> dict[str, Any]:
    """What a rank does with its share of one batch, worked out without any other process."""
    torch.manual_seed(7)
    solver.models.train()
    training = solver.training
    loader = SegmentLoader(
        solver.splits.datasets["train"], training.batch_size, seed=training.seed, max_batches=1,
        rank=rank, n_ranks=n_ranks,
    )  # fmt: skip
    (batch,) = loader.epoch(0)
    prediction, _ = solver._forward(solver.scaler(batch))
    loss = solver.loss(prediction.estimate, prediction.target)
    loss.backward()
    return {"loss": loss.item(), "gradients": gradients(solver), "n_segments": len(batch)}


def gradients(solver: Solver) -> dict[str, torch.Tensor]:
    """Gradient of each parameter, by name."""
    found = {name: parameter.grad for name, parameter in solver.models.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def work(rank: int, n_ranks: int, port: int, overrides: Sequence[str], out: Path) -> None:
    """One process: train for a step, validate, test; results go to ``out/RANK.pt``."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(n_ranks), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    distrib.start()
    solver = build(overrides)
    found = step(solver)
    with solver.optimizer.averaged():
        found["valid"] = solver._validate()["loss"]
    found["average"] = solver.optimizer.average
    found["test"] = solver.test()
    table = solver.retrieve().table
    found["retrieval"] = table[["row", "candidate", "rank"]].to_numpy().tolist()
    torch.save(found, out / f"{rank}.pt")
    distrib.stop()


def run_ranks(n_ranks: int, overrides: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Start so many processes, wait for them, and return what each has found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks"])
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=work, args=(rank, n_ranks, port, overrides, out))
        for rank in range(n_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
    for process in processes:
        process.kill()
    assert [process.exitcode for process in processes] == [0] * n_ranks
    return [torch.load(out / f"{rank}.pt") for rank in range(n_ranks)]
