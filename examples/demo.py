"""From images to a trained network, through tar shards.

Three steps, each a function below: write shards, look at one of them as a stream, train from them.
The images come inside scikit-learn: 1,797 handwritten digits of 8 by 8 pixels, and two photographs.

    python examples/demo.py            # writes demo-data/ once, trains, prints samples/s and accuracy
    tar tf demo-data/digits-test-0000.tar | head
    rm -r demo-data                    # to begin again

It ends with status 1 when the network does not reach the accuracy that it should.
"""

import argparse
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import nn

import webdataset as wds

TRAIN, TEST, PHOTOS = "digits-train-{0000..0011}.tar", "digits-test-{0000..0002}.tar", "photos-{0000..0001}.tar"
ENOUGH = 0.95


def write_shards(folder: Path) -> None:
    """Write digits as png + cls, and crops of the photographs as jpg + json, if they are not there yet.

    A sample is a dict. `__key__` names it, every other entry becomes a file `<key>.<entry>` in the
    archive, encoded as the entry's name says. The folder gets its name when all shards are complete.
    """
    if folder.exists():
        print(f"{folder}: the shards are there already")
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
    partial.mkdir(parents=True)

    digits = load_digits()
    numbers = list(range(len(digits.target)))
    random.Random(0).shuffle(numbers)  # shards of mixed samples: reading them in order is half a shuffle
    for name, part in ("train", numbers[360:]), ("test", numbers[:360]):
        with wds.ShardWriter(f"{partial}/digits-{name}-%04d.tar", maxcount=120, verbose=0) as sink:
            for number in part:
                image = (digits.images[number] / 16 * 255).astype(np.uint8)
                sink.write({"__key__": f"{number:06d}", "png": image, "cls": int(digits.target[number])})

    photos = load_sample_images()
    places = [(name, y, x) for name in range(2) for y in range(0, 400, 64) for x in range(0, 600, 64)]
    with wds.ShardWriter(f"{partial}/photos-%04d.tar", maxcount=70, verbose=0) as sink:
        for photo, top, left in places:
            crop = photos.images[photo][top : top + 64, left : left + 64]
            about = {"photo": Path(photos.filenames[photo]).name, "top": top, "left": left}
            sink.write({"__key__": f"{photo}-{top:03d}-{left:03d}", "jpg": crop, "json": about})

    partial.rename(folder)
    print(f"{folder}: wrote {len(numbers):,} digits and {len(places)} crops in {len(list(folder.iterdir()))} shards")


def look_at_photos(folder: Path) -> None:
    """Stream the crops once: a WebDataset is an iterable, and each method adds a stage to it."""
    dataset = wds.WebDataset(f"{folder}/{PHOTOS}", shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
    brightness: dict[str, list[float]] = {}
    for image, about in dataset:
        brightness.setdefault(about["photo"], []).append(image.mean() / 255)
    for photo, values in brightness.items():
        print(f"{photo}: {len(values)} crops, mean brightness {np.mean(values):.2f}")


def digits(folder: Path, shards: str, workers: int) -> torch.utils.data.DataLoader:
    """Batches of (images, labels) from the shards: shuffled, decoded and batched in the workers.

    Images are float32 of shape (64, 8, 8, 3) in [0, 1], labels int64 of shape (64,). The batches are
    made by the dataset, so the DataLoader gets batch_size=None.
    """
    dataset = (
        wds.WebDataset(f"{folder}/{shards}", shardshuffle=100)
        .shuffle(1000)
        .decode("rgb")
        .to_tuple("png", "cls")
        .batched(64)
    )
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=leave_ctrl_c_to_the_program,
    )


def leave_ctrl_c_to_the_program(worker: int) -> None:
    """Ctrl-C reaches the workers too; they go on, and the program ends them in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def network() -> nn.Module:
    """A small convolutional network for 8 by 8 images."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


def train(model: nn.Module, loader: torch.utils.data.DataLoader, epochs: int) -> float:
    """Train, with a line of progress an epoch; the result is in samples per second, start-up included."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    total, start = 0, time.perf_counter()
    for epoch in range(1, epochs + 1):
        losses, count, begin = [], 0, time.perf_counter()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images.permute(0, 3, 1, 2)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            count += len(labels)
        total += count
        bar = "#" * (20 * epoch // epochs)
        rate = count / (time.perf_counter() - begin)
        print(f"[{bar:.<20}] epoch {epoch:2}  loss {np.mean(losses):.3f}  {rate:6,.0f} samples/s", flush=True)
    return total / (time.perf_counter() - start)


@torch.no_grad()
def accuracy(model: nn.Module, loader: torch.utils.data.DataLoader) -> float:
    """Share of samples, from 0 to 1, that the network names right."""
    model.eval()
    right = count = 0
    for images, labels in loader:
        right += (model(images.permute(0, 3, 1, 2)).argmax(1) == labels).sum().item()
        count += len(labels)
    return right / count


def main() -> int:
    """Run the three steps; 0 when the accuracy on the shards that were not trained on is high enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("demo-data"), help="folder of the shards (%(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training shards (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes, 0 for none (%(default)s)")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)  # several would wait for each other longer than this network computes
    write_shards(args.data)
    look_at_photos(args.data)
    model = network()
    rate = train(model, digits(args.data, TRAIN, args.workers), args.epochs)
    reached = accuracy(model, digits(args.data, TEST, 0))
    print(f"{rate:,.0f} samples/s with {args.workers} workers; test accuracy {reached:.1%}")
    if reached <= ENOUGH:
        print(f"the accuracy should be over {ENOUGH:.0%}", file=sys.stderr)
    return 0 if reached > ENOUGH else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
