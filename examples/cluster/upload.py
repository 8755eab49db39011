"""Put the files of a folder into a bucket, whose store and key the environment names as AWS's own tools read it.

python examples/cluster/upload.py data/fashion-mnist s3://boatyard/fashion-mnist
"""

import sys
from pathlib import Path

from boatyard import storage

folder, uri = Path(sys.argv[1]), sys.argv[2]
for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
    storage.open(uri).put(path.name, path)
    print(f"{uri}/{path.name}: {path.stat().st_size} bytes")
