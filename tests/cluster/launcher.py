"""What KFP's launcher does around a component's command, for the tests: artifacts come from the store and go to it.

It runs in the component's own container, as KFP's does: objects below an input's URI are copied to /s3/BUCKET/KEY, the
command runs, outputs are copied back when it succeeded, and its log in any case.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from boatyard import storage

GIVEN = json.loads(os.environ["EXECUTOR_INPUT"])
COMMAND = json.loads(os.environ["COMMAND"])
LOG = os.environ["LOG_URI"]


def place(uri: str) -> Path:
    """Return where a component finds an artifact."""
    return Path("/s3") / uri.removeprefix("s3://")


def artifacts(of: str) -> list[str]:
    return [one["uri"] for found in GIVEN[of].get("artifacts", {}).values() for one in found["artifacts"]]


def download(uri: str) -> None:
    """Copy the object of a URI, or what lies below it; of nothing an empty folder comes, as of KFP's launcher."""
    above, _, name = uri.rpartition("/")
    if found := storage.open(above).find(name):
        place(uri).parent.mkdir(parents=True, exist_ok=True)
        place(uri).write_bytes(found.data)
        return
    place(uri).mkdir(parents=True, exist_ok=True)
    bucket = storage.open(uri)
    for key in bucket.list():
        (place(uri) / key).parent.mkdir(parents=True, exist_ok=True)
        (place(uri) / key).write_bytes(bucket.read(key))


def upload(path: Path, uri: str) -> None:
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        above, _, name = (f"{uri}/{file.relative_to(path)}" if file != path else uri).rpartition("/")
        storage.open(above).put(name, file)


for uri in artifacts("inputs"):
    download(uri)
for uri in artifacts("outputs"):
    place(uri).parent.mkdir(parents=True, exist_ok=True)
Path("/tmp/kfp/outputs").mkdir(parents=True)
if devices := os.environ.get("NVIDIA_VISIBLE_DEVICES"):
    print(f"NVIDIA_VISIBLE_DEVICES={devices}", flush=True)
with open("/tmp/log", "wb") as log:
    code = subprocess.run(COMMAND, stdout=log, stderr=subprocess.STDOUT).returncode
sys.stdout.write(Path("/tmp/log").read_text())
upload(Path("/tmp/log"), LOG)
if code == 0:
    for uri in artifacts("outputs"):
        upload(place(uri), uri)
    upload(Path(GIVEN["outputs"]["outputFile"]), LOG.rpartition("/")[0] + "/executor-output.json")
sys.exit(1 if code else 0)
