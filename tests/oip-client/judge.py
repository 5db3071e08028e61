"""What tritonclient, the client of NVIDIA's Triton, says of narrows-tail's Open Inference Protocol over HTTP."""

import json
import os
import pathlib
import re
import sys
import tomllib

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

address, token = os.environ["NARROWS_OIP"], os.environ["NARROWS_TOKEN"]
bundle, photo = pathlib.Path(os.environ["NARROWS_BUNDLE"]), pathlib.Path(os.environ["NARROWS_PHOTO"])
client = http.InferenceServerClient(address)
manifest = tomllib.loads((bundle / "manifest.toml").read_text())
tasks = {task["name"]: task for task in manifest["task"]}


def bearer():
    # The client writes into it.
    return {"Authorization": f"Bearer {token}"}


def fails(words, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        assert re.search(words, str(error)), f"{words}: {error}"
    else:
        sys.exit(f"no error with {words}")


def tensor(name, values, datatype, binary):
    own = http.InferInput(name, list(values.shape), datatype)
    own.set_data_from_numpy(values, binary_data=binary)
    return own


def close(found, expected):
    return np.allclose(found, expected, rtol=1e-2, atol=1e-2)


# Health, metadata, the index.
assert client.is_server_live() and client.is_server_ready()
fails("401.*Bearer", client.get_server_metadata)
assert client.get_server_metadata(headers=bearer())["name"] == "narrows-tail"
index = {entry["name"]: entry for entry in client.get_model_repository_index(headers=bearer())}
assert {"lite2.classify", "lite2.classify.tail", "lite2.segment", "lite2.segment.tail"} == set(index), index
version = index["lite2.classify"]["version"]
assert all(entry["state"] == "READY" and entry["version"] == version for entry in index.values()), index
for name in index:
    assert client.is_model_ready(name, headers=bearer()) and client.is_model_ready(name, version, headers=bearer())
    metadata = client.get_model_metadata(name, headers=bearer())
    assert metadata["name"] == name and metadata["versions"] == [version], metadata
assert not client.is_model_ready("lite2.depth", headers=bearer())
assert not client.is_model_ready("lite2.classify", "99999999", headers=bearer())
fails("404.*no model", client.get_model_metadata, "lite3.classify", headers=bearer())

# The tails, on the bundle's own vectors, in JSON and in binary form.
vectors = [vector for vector in manifest["vector"] if vector["geometry"] == "photo"]
channels, stride = manifest["head"]["channels"], manifest["head"]["stride"]
geometry = next(geometry for geometry in manifest["geometry"] if geometry["name"] == "photo")
shape = (channels, geometry["height"] // stride, geometry["width"] // stride)


def latent(vector):
    step = manifest["level"][vector["level"]]["step"]
    symbols = np.frombuffer((bundle / vector["symbols"]).read_bytes(), np.int8).reshape(shape)
    return symbols.astype(np.float32) * np.float32(step), np.float32(step)


def expected(vector, task):
    output = next(output for output in vector["output"] if output["task"] == task)
    return np.frombuffer((bundle / output["file"]).read_bytes(), "<f4")


for binary in [True, False]:
    values, steps = zip(*(latent(vector) for vector in vectors[:2]))
    inputs = [
        tensor("latent", np.stack(values), "FP32", binary),
        tensor("step", np.array(steps, np.float32), "FP32", binary),
    ]
    wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ["logits", "probabilities"]]
    result = client.infer("lite2.classify.tail", inputs, outputs=wanted, request_id="17", headers=bearer())
    answer = result.get_response()
    assert answer["id"] == "17" and answer["model_version"] == version, answer
    logits = result.as_numpy("logits")
    assert logits.shape == (2, 1000)
    for item, vector in enumerate(vectors[:2]):
        assert close(logits[item], expected(vector, "classify")), vector["name"]
    probabilities = result.as_numpy("probabilities")
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert (probabilities.argmax(axis=1) == logits.argmax(axis=1)).all()

values, step = latent(vectors[0])
inputs = [tensor("latent", values[None], "FP32", True), tensor("step", np.array([step], np.float32), "FP32", True)]
result = client.infer("lite2.segment.tail", inputs, headers=bearer())
mask, classes = result.as_numpy("mask"), result.as_numpy("classes")
assert mask.shape == (1, 11, 224, 224) and classes.shape == (1, 224, 224) and classes.dtype == np.uint8
assert (mask.argmax(axis=1) == classes).all()
assert close(mask[0, :, 4::8, 4::8].ravel(), expected(vectors[0], "segment"))

# Whole networks: an image file, and the pixels themselves.
file = np.array([photo.read_bytes()], dtype=np.object_)
wanted = [http.InferRequestedOutput("probabilities", class_count=3)]
result = client.infer("lite2.classify", [tensor("file", file, "BYTES", True)], outputs=wanted, headers=bearer())
best = [entry.decode() for entry in result.as_numpy("probabilities")[0]]
assert len(best) == 3 and best[0].split(":")[2] == "orange" and float(best[0].split(":")[0]) > 0.3, best
pixels = np.full((2, 224, 224, 3), 128, np.uint8)
result = client.infer("lite2.classify", [tensor("image", pixels, "UINT8", True)], headers=bearer())
logits = result.as_numpy("logits")
assert logits.shape == (2, 1000) and np.allclose(logits[0], logits[1], atol=1e-3)
frame = np.full((1, 360, 480, 3), 128, np.uint8)
wanted = [http.InferRequestedOutput("classes")]
result = client.infer("lite2.segment", [tensor("image", frame, "UINT8", True)], outputs=wanted, headers=bearer())
assert result.as_numpy("classes").shape == (1, 360, 480)

# Many at once share runs.
pool = http.InferenceServerClient(address, concurrency=8)
inputs = [tensor("image", pixels[:1], "UINT8", True)]
running = [pool.async_infer("lite2.classify", inputs, headers=bearer()) for _ in range(16)]
for each in running:
    assert np.allclose(each.get_result().as_numpy("logits")[0], logits[0], atol=1e-3)
pool.close()

# What is wrong is said.
for words, name, tensors, more in [
    ("400.*input image: .*100×100", "lite2.classify", [tensor("image", np.zeros((1, 100, 100, 3), np.uint8), "UINT8", True)], {}),
    ("400.*input photo", "lite2.classify", [tensor("photo", pixels, "UINT8", True)], {}),
    ("400.*no JPEG", "lite2.classify", [tensor("file", np.array([b"text"], np.object_), "BYTES", True)], {}),
    ("400.*truncated", "lite2.classify", [tensor("file", np.array([photo.read_bytes()[:999]], np.object_), "BYTES", True)], {}),
    ("400.*give the inputs|400.*inputs; give", "lite2.classify.tail", [tensor("latent", values[None], "FP32", True)], {}),
    ("400.*give \\[n, 36", "lite2.classify.tail", [tensor("latent", values[None, :7], "FP32", True), tensor("step", np.ones(1, np.float32), "FP32", True)], {}),
    ("400.*output", "lite2.classify", [tensor("image", pixels, "UINT8", True)], {"outputs": [http.InferRequestedOutput("depth")]}),
    ("400.*items in the batch", "lite2.classify", [tensor("image", np.zeros((9, 224, 224, 3), np.uint8), "UINT8", True)], {}),
    ("504", "lite2.classify", [tensor("image", pixels, "UINT8", True)], {"timeout": 1}),
]:
    fails(words, client.infer, name, tensors, headers=bearer(), **more)
print(json.dumps({"version": version}))
