"""Caches compiled programs on disk, so that a second run with the same shapes compiles nothing."""

import jax

from wsr.runtime.assets import cache_folder


def use_persistent_cache() -> None:
    """Turns on JAX's persistent compilation cache.

    It uses the folder of ``JAX_COMPILATION_CACHE_DIR`` if that is set, or else the cache folder of this package.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    # By default JAX caches only programs that compile slowly; many small ones would be compiled again.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
