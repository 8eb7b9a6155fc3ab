"""Compare our networks with the reference packages on the same random weights and prompts.

    python tests/parity/compare.py [REFERENCE ...] [--table docs/parity.md]

Needs an environment with torch and the reference packages:

    pip install torch==2.13.0 segment-anything==1.0 mobilesam-mirror==1.0.0 timm transformers==5.23.0
    pip install safetensors numpy pillow

Each number is the largest absolute difference in float32. The image embedding is compared at full size;
prompts are decoded on the reference's own embedding, scaled as it comes.
"""

import argparse
import gc
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from references import Prompts, available  # noqa: E402

from napari_sam.model.checkpoints import fill  # noqa: E402
from napari_sam.model.configs import CONFIGS, SamConfig  # noqa: E402
from napari_sam.model.sam import Sam, build_sam  # noqa: E402

TOLERANCE = 1e-4
DEFAULT = ("segment-anything:vit_b", "mobile-sam:vit_t", "transformers:vit_b")


@dataclass
class Report:
    """Differences of one reference: the embedding once, the rest for each kind of prompt."""

    name: str
    title: str
    embedding: float
    explicit: float | None
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        return max(self.embedding, self.explicit or 0.0, *(max(row.values()) for row in self.rows.values()))


def prompt_cases(config: SamConfig, batch: int = 2) -> dict[str, Prompts]:
    """One set of prompts of every kind, drawn with a fixed seed; `batch` objects each."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    points = draw(batch, 3, 2) * config.image_size
    labels = torch.tensor([[1, 0, 1], [1, 1, 0]])[:batch]
    corner, size = draw(batch, 2) * 400, 50 + draw(batch, 2) * 400
    boxes = torch.cat([corner, corner + size], dim=1)
    masks = 8 * torch.randn(batch, 1, config.mask_size, config.mask_size, generator=generator)
    all_kinds = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
    chosen = {
        "one point": {"points": points[:, :1], "labels": labels[:, :1]},
        "points": {"points": points, "labels": labels},
        "box": {"boxes": boxes},
        "mask": {"masks": masks},
        "points and mask": {"points": points, "labels": labels, "masks": masks},
        "points and box": {"points": points, "labels": labels, "boxes": boxes},
        "points, box and mask": all_kinds,
    }
    return {name: {key: case.get(key) for key in all_kinds} for name, case in chosen.items()}


def our_model(config: SamConfig, state: dict[str, Tensor], attention: Any = "fast") -> Sam:
    """Our network with the reference's tensors."""
    with torch.device("meta"):
        sam = build_sam(config, attention)
    fill(sam, state, "the reference")
    return sam.eval()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max()) if ours.numel() else 0.0


def compare_prompts(ours: Sam, reference: Any, embedding: Tensor, prompts: Prompts) -> dict[str, float]:
    """Differences of everything after the image encoder for one set of prompts."""
    sparse, dense = ours.prompt_encoder(**prompts)
    their_sparse, their_dense = reference.embed_prompts(prompts)
    if prompts["points"] is None and prompts["boxes"] is None:  # packages differ in how they say "none"
        assert their_sparse.numel() == 0
        their_sparse = their_sparse.new_zeros(len(sparse), 0, sparse.shape[2])
    row = {"sparse": difference(sparse, their_sparse), "dense": difference(dense, their_dense)}
    pe = ours.prompt_encoder.dense_pe()
    for multimask in (False, True):
        logits, iou = ours.mask_decoder(embedding, pe, sparse, dense, multimask)
        their_logits, their_iou = reference.decode(embedding, sparse, dense, multimask)
        suffix = "3 answers" if multimask else "1 answer"
        row[f"low_res_logits, {suffix}"] = difference(logits, their_logits)
        row[f"predicted_iou, {suffix}"] = difference(iou, their_iou)
    return row


@torch.inference_mode()
def compare(name: str, reference: Any, explicit: bool = False) -> Report:
    """Build both, encode one random image, decode every kind of prompt."""
    reference.build()
    config = CONFIGS[reference.variant]
    state = reference.state()
    ours = our_model(config, state)
    image = torch.randn(
        1, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(2)
    )
    embedding = reference.encode(image)
    by_formula = (
        difference(our_model(config, state, "explicit").encode(image), embedding) if explicit else None
    )
    report = Report(name, reference.title, difference(ours.encode(image), embedding), by_formula)
    for kind, prompts in prompt_cases(config).items():
        report.rows[kind] = compare_prompts(ours, reference, embedding, prompts)
    return report


def as_markdown(reports: list[Report], command: str) -> str:
    """The page of differences."""
    lines = [
        "# Parity with the reference implementations",
        "",
        "The same random weights (every tensor drawn, batch statistics and position biases too), the same",
        "random 1024 x 1024 input, the same prompts for two objects. Numbers are the largest absolute",
        f"difference in float32; all must stay under {TOLERANCE:g}. Written by `tests/parity/compare.py`:",
        "",
        f"    {command}",
        "",
        f"torch {version('torch')}, CPU, {torch.get_num_threads()} threads.",
    ]
    for report in reports:
        lines += ["", f"## {report.name.split(':')[1]} against {report.title}", ""]
        lines += [f"Image embedding: {report.embedding:.1e}."]
        if report.explicit is not None:
            lines += [f"Image embedding with attention written out: {report.explicit:.1e}."]
        columns = list(next(iter(report.rows.values())))
        lines += ["", "| prompts | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for kind, row in report.rows.items():
            lines.append(f"| {kind} | " + " | ".join(f"{row[column]:.1e}" for column in columns) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Compare, write the page if asked to, and say whether all differences are small."""
    parser = argparse.ArgumentParser(description="Compare our networks with the reference packages.")
    parser.add_argument(
        "references", nargs="*", help=f"any of {', '.join(available())}; installed ones by default"
    )
    parser.add_argument("--table", type=Path, help="write the differences to this markdown file")
    parser.add_argument("--explicit", action="store_true", help="compare the written-out attention too")
    options = parser.parse_args(arguments)
    installed = available()
    names = options.references or [name for name in DEFAULT if name in installed]
    if not names or not set(names) <= set(installed):
        print(
            f"not installed: {sorted(set(names) - set(installed)) or 'any reference package'}",
            file=sys.stderr,
        )
        return 2
    reports = []
    for name in names:
        reports.append(compare(name, installed[name], options.explicit and name == "segment-anything:vit_b"))
        print(f"{name}: largest difference {reports[-1].worst:.2e}", flush=True)
        installed[name].model = None
        gc.collect()
    if options.table:
        command = " ".join(["python tests/parity/compare.py", *(arguments or sys.argv[1:])])
        options.table.write_text(as_markdown(reports, command), encoding="utf-8")
    return 0 if all(report.worst < TOLERANCE for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
