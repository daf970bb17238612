"""
Make models as other people leave them, with the answers that their own frameworks give.

Runs in the training environment: `python foreign.py FOLDER`. All is seeded and tiny, and nothing of ours is imported,
since what these files answer is what an import is held to.
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

PICTURES = 5
layers = keras.layers


def vgg(side: int) -> Any:
    """Stacked convolutions, pooling, dense layers; the caller divides by 255."""
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="last"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(
                1,
                activation="sigmoid",
                kernel_initializer=keras.initializers.RandomNormal(0, 3, seed=1),
                bias_initializer=keras.initializers.Constant(1.4),
            ),
        ]
    )


def mobile(side: int) -> Any:
    """MobileNet's blocks in a model within a model, which scales pixels itself and names three classes."""
    pixels = inner = keras.Input((side, side, 3))
    for filters, stride in ((8, 2), (8, 1), (16, 2)):
        shortcut = inner
        inner = layers.Conv2D(24, 1, use_bias=False)(inner)
        inner = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.5)(inner))
        inner = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(inner)
        inner = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.5)(inner))
        inner = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(filters, 1, use_bias=False)(inner))
        inner = layers.Add()([shortcut, inner]) if shortcut.shape == inner.shape else inner
    inner = layers.ReLU(6.0, name="last")(layers.BatchNormalization(momentum=0.5)(layers.Conv2D(20, 1)(inner)))
    body = keras.Model(pixels, inner, name="body")
    head = keras.initializers.RandomNormal(0, 0.4, seed=2)
    model = keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            body,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", kernel_initializer=head),
        ]
    )
    noise = np.random.default_rng(0).uniform(0, 255, (32, side, side, 3)).astype(np.float32)
    for _ in range(8):
        # Fresh statistics of normalisation would make all answers alike.
        model(noise, training=True)
    return model


def balance(model: Any, pixels: np.ndarray[Any, Any]) -> None:
    """Move the last layer's biases so that *pixels* are not all of one class."""
    dense = model.layers[-1]
    features = keras.Sequential(model.layers[:-1])(pixels, training=False)
    dense.bias.assign(-tf.reduce_mean(tf.matmul(features, dense.kernel), 0))


def pictures(folder: Path, side: int) -> np.ndarray[Any, Any]:
    """Write pictures as PNG, and return them as uint8[n, side, side, 3]."""
    rng = np.random.default_rng(side)
    drawn = []
    for number in range(PICTURES):
        coarse = rng.uniform(0, 255, (4 + 3 * number, 4 + 3 * number, 3)).astype(np.uint8)
        drawn.append(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        drawn[-1].save(folder / f"{side}-{number}.png")
    return np.stack([np.asarray(picture) for picture in drawn])


def heat(body: Any, head: Any, pixels: np.ndarray[Any, Any]) -> list[Any]:
    """Return Grad-CAM by TensorFlow's own derivatives, scaled to 0..1."""
    with tf.GradientTape() as tape:
        features = body(tf.constant(pixels))
        tape.watch(features)
        evidence = head(features)
    weights = tf.reduce_mean(tape.gradient(evidence, features), [1, 2], keepdims=True)
    found = tf.nn.relu(tf.reduce_sum(weights * features, -1))
    return list((found / (tf.reduce_max(found, [1, 2], keepdims=True) + 1e-6)).numpy().tolist())


def vgg_heat(model: Any, pixels: np.ndarray[Any, Any]) -> list[Any]:
    """Return the heat maps of `vgg`: evidence is the logit."""
    place = [layer.name for layer in model.layers].index("last")
    body = keras.Model(model.inputs, model.layers[place].output)

    def head(values: Any) -> Any:
        for layer in model.layers[place + 1 : -1]:
            values = layer(values)
        kernel, bias = model.layers[-1].weights
        return (tf.matmul(values, kernel) + bias)[:, 0]

    return heat(body, head, pixels)


def mobile_heat(model: Any, pixels: np.ndarray[Any, Any]) -> list[Any]:
    """Return the heat maps of `mobile`: evidence is the last class's logit less the first's."""
    scale, body, pool, _, dense = model.layers
    kernel = dense.weights[0]

    def head(values: Any) -> Any:
        return tf.matmul(pool(values), kernel[:, 2:3] - kernel[:, 0:1])[:, 0]

    return heat(lambda values: body(scale(values)), head, pixels)


def converted(model: Any, *, eight_bits: bool) -> bytes:
    """Return a LiteRT file for one picture a run; with 8 bits inside, at its input and at its output, or none."""
    shape = [1, *model.inputs[0].shape[1:]]
    function = tf.function(lambda pixels: model(pixels, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if eight_bits:
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([rng.uniform(0, 1, shape).astype(np.float32)] for _ in range(8))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def litert_answers(content: bytes, pixels: np.ndarray[Any, Any]) -> list[float]:
    """Return what a LiteRT file answers to float32[n, h, w, 3] in 0..1."""
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for picture in pixels:
        scale, zero = given["quantization"]
        value = picture if not scale else np.clip(np.rint(picture / scale) + zero, -128, 127)
        interpreter.set_tensor(given["index"], value[None].astype(given["dtype"]))
        interpreter.invoke()
        scale, zero = told["quantization"]
        answer = float(interpreter.get_tensor(told["index"])[0, 0])
        answers.append((answer - zero) * scale if scale else answer)
    return answers


def bad(folder: Path) -> None:
    """Write models that must be refused."""
    pixels = keras.Input((16, 16, 3))
    flat = layers.Flatten()(pixels)
    keras.Model(pixels, layers.Dense(1, activation="sigmoid")(flat)).save(folder / "dense.keras")
    age = keras.Input((1,))
    both = layers.Concatenate()([flat, age])
    keras.Model([pixels, age], layers.Dense(1, activation="sigmoid")(both)).save(folder / "two-inputs.keras")
    lambda_ = layers.Lambda(lambda values: values / 255.0)(pixels)
    model = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(layers.Flatten()(lambda_)))
    model.save(folder / "lambda.keras")
    model.save(folder / "lambda.h5")

    class Reading(tf.Module):  # type: ignore[misc]  # no stubs
        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, values: Any) -> Any:
            text = tf.io.read_file("/etc/hostname")
            length = tf.cast(tf.strings.length(text), tf.float32)
            return tf.sigmoid(tf.reduce_mean(values, [1, 2, 3])[:, None] + length)

    class Calling(tf.Module):  # type: ignore[misc]  # no stubs
        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, values: Any) -> Any:
            mean = tf.reduce_mean(values, [1, 2, 3])[:, None]
            called = tf.numpy_function(lambda found: found, [mean], tf.float32)
            return tf.sigmoid(tf.reshape(called, [-1, 1]))

    for name, module in (("reads-a-file", Reading()), ("calls-python", Calling())):
        tf.saved_model.save(module, str(folder / name), signatures=module.__call__.get_concrete_function())


def labelled(folder: Path, model: Any, side: int) -> None:
    """Write pictures in a folder for each label, as a person would label them who mostly agrees with *model*."""
    rng = np.random.default_rng(5)
    for number in range(60):
        coarse = rng.uniform(0, 255, (6, 6, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        score = float(model(np.asarray(picture, np.float32)[None] / 255, training=False)[0, 0])
        label = ("Negative", "Positive")[int((score >= 0.5) != (number % 6 == 0))]
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture.save(folder / label / f"{number}.png")


def main(folder: Path) -> None:
    """Write everything, and `expected.json`: for each file the scores of the pictures, and heat maps by derivative."""
    keras.utils.set_random_seed(11)
    folder.mkdir(parents=True)
    one, three = vgg(32), mobile(48)
    small, large = pictures(folder, 32), pictures(folder, 48)
    scaled = small.astype(np.float32) / 255
    plain = large.astype(np.float32)
    balance(three, plain)
    one.save(folder / "vgg.h5")
    three.save(folder / "mobile.keras")
    one.export(str(folder / "saved"), verbose=False)
    files = {"float": converted(one, eight_bits=False), "int8": converted(one, eight_bits=True)}
    expected = {
        "vgg": {"scores": one(scaled, training=False).numpy()[:, 0].tolist(), "heat": vgg_heat(one, scaled)},
        "mobile": {"classes": three(plain, training=False).numpy().tolist(), "heat": mobile_heat(three, plain)},
    }
    expected["saved"] = expected["vgg"]
    for name, content in files.items():
        (folder / f"{name}.tflite").write_bytes(content)
        expected[name] = {"scores": litert_answers(content, scaled)}
    labelled(folder / "labelled", one, 32)
    bad(folder)
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
