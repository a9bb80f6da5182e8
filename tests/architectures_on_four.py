"""Every architecture cut over four devices, in a process of its own, run by a test.

Prints, by architecture, the largest difference from one device and the share of its kernels that a device holds.
"""

import json

import jax
import numpy as np
from models_support import in_rows, inputs_for, random_texts

from wsr import models
from wsr.geometry.trees import flatten
from wsr.models import cuts
from wsr.models.features import _encoder
from wsr.runtime.devices import mesh_of

mesh, found = mesh_of(1, 1, 4), {}
examples = {name: models.build(name, architecture.example) for name, architecture in models.architectures().items()}
batches = {name: inputs_for(model).together for name, model in examples.items()}
examples["llama, long rows"] = examples["llama"]
batches["llama, long rows"] = in_rows(random_texts(0, [500, 100], 40), [[0, 1]], 608)
for name, model in examples.items():
    params = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    alone = np.asarray(model.encode(params, batches[name]))
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[None], (params, batches[name]))
    points = jax.device_put(first[0], cuts.shardings(params, mesh, "points"))
    together = np.asarray(_encoder(model, mesh)(points, first[1]))[0, 0]
    kernels = {path: leaf for path, leaf in flatten(params).items() if path.endswith("kernel")}
    share = cuts.bytes_on_each(kernels, 4) / sum(leaf.nbytes for leaf in kernels.values())
    found[name] = [float(np.abs(together - alone).max()), share]
print(json.dumps(found))
