"""Everything that depends on the machine: devices, processes, memory, files and caches. No statistics, no models.

cores.py, devices.py, hosts.py, placement.py   processors, accelerators, processes; memory and placement of arrays
compilation.py, seeds.py                       the cache of compiled programs; named random streams
atomic.py, strict_json.py, printable.py        atomic writes, strict JSON, text that is safe on a terminal
new_folder.py                                  a folder that appears complete or not at all
tensor_files.py, model_folder.py               safetensors in pieces; which files of a model folder are read and kept
assets.py, buckets.py                          packages downloaded by hash; folders synchronised with a bucket
hub_client.py                                  the client of the Hugging Face hub, which gives up in seconds
progress.py, preemption.py                     progress of long work; SIGTERM ends it cleanly
one_behind.py, processes.py                    jobs beside a device; jobs in forked processes
past_cache.py, read_ahead.py                   files past the page cache; tensors that are read before their turn
"""
