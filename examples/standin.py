"""Page images with annotations, made up: a small stand-in for the PubLayNet shards of many tutorials.

    python examples/standin.py pages            # writes pages/publaynet-train-000000.tar ... 000009.tar
    python -m http.server --directory pages 8000
    export GOPEN_REWRITE=https://storage.googleapis.com/webdataset/testdata/=http://127.0.0.1:8000/

After that, `WebDataset("https://storage.googleapis.com/webdataset/testdata/publaynet-train-{000000..000009}.tar")`
reads the stand-in. A sample is a page as png and its annotations as json, in COCO's form.
"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

import webdataset as wds

SHARDS, SAMPLES = 10, 8
FIRST = ["PMC4991227_00003", "PMC4537884_00002", "PMC4323233_00003", "PMC5429906_00004", "PMC5592712_00002"]
CATEGORIES = {1: "text", 2: "title", 3: "list", 4: "table", 5: "figure"}


def page(rng: random.Random, number: int) -> dict:
    """One page of blocks from top to bottom: grey lines where a page has text, a box where it has a figure."""
    width, height = rng.choice([(306, 396), (298, 421), (304, 410)])
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    annotations, top = [], 20
    while top < height - 40:
        category = rng.choice(list(CATEGORIES))
        bottom = min(top + rng.randint(12, 90), height - 20)
        if CATEGORIES[category] in ("figure", "table"):
            draw.rectangle((24, top, width - 24, bottom), outline="black", fill=(210, 220, 235))
        else:
            for line in range(top, bottom, 6):
                draw.line((24, line, width - 24 - rng.randint(0, 60), line), fill=(90, 90, 90), width=2)
        box = [24, top, width - 48, bottom - top]
        annotations.append(
            {"id": len(annotations), "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        )
        top = bottom + 12
    name = FIRST[number] if number < len(FIRST) else f"PMC{rng.randrange(10**6, 10**7)}_{number:05d}"
    about = {"file_name": f"{name}.jpg", "id": number, "width": width, "height": height, "annotations": annotations}
    return {"__key__": name, "png": image, "json": about}


def write_shards(folder: Path) -> list[str]:
    """Write the shards into the folder, the same bytes each time; the result is the keys of all samples, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    keys = []
    for shard in range(SHARDS):
        with wds.TarWriter(str(folder / f"publaynet-train-{shard:06d}.tar")) as sink:
            for number in range(shard * SAMPLES, (shard + 1) * SAMPLES):
                sample = page(rng, number)
                sink.write(sample)
                keys.append(sample["__key__"])
    return keys


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    print(f"{len(write_shards(Path(sys.argv[1])))} pages in {SHARDS} shards")
