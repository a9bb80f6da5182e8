"""What a program needs from the machine. No statistics, no models, and not a place for leftovers.

cores.py, devices.py, hosts.py, placement.py   processors, accelerators, processes; what goes where, in how much memory
compilation.py, seeds.py                       compiled programs kept on disk; every random stream
atomic.py, strict_json.py, printable.py        whole files, strict JSON, text that is safe on a terminal
assets.py, buckets.py                          packages fetched by hash; folders in step with a bucket
progress.py, preemption.py                     progress of long work; SIGTERM ends it cleanly
"""
