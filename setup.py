"""Compiles the fused kernel, once per instruction set; where that fails, the package works without it."""

from setuptools import Extension, setup

FLAGS = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
    "avx2": ["-mavx2", "-mfma"],
    "portable": [],
}
FOLDER = "lgsirens/nn/kernels/source"

setup(
    ext_modules=[
        Extension(
            f"lgsirens.nn.kernels._{name}",
            [f"{FOLDER}/{source}.c" for source in ("fused", "soap", "adam")],
            depends=[f"{FOLDER}/{header}.h" for header in ("fused", "soap", "layers", "products", "lanes")],
            extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", *flags],
            # It is no Python module: one build serves every version.
            py_limited_api=True,
            libraries=["m"],
            optional=True,
        )
        for name, flags in FLAGS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
