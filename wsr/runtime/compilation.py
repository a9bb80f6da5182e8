"""Compiled programs are kept on disk, so that a second run of the same shapes compiles nothing."""

import jax

from wsr.runtime.assets import cache_folder


def use_persistent_cache() -> None:
    """Turns on JAX's persistent compilation cache under the cache folder of this package.

    A user who has set ``JAX_COMPILATION_CACHE_DIR`` keeps their own.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    # By default JAX keeps only what took long: a second run would then compile its many small programs again.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
