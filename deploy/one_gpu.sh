#!/bin/sh
# Runs a worker on a GPU that no other worker of this machine has: one_gpu.sh python -m worker
# Whoever holds the lock of a device's file has the device. The kernel takes it back at its holder's end, however that comes.
set -eu
folder=${GPU_LOCKS:-/var/lib/gpus}
devices=$(nvidia-smi --query-gpu=uuid --format=csv,noheader)

for device in $devices; do
    exec 9>"$folder/$device"
    if flock --nonblock 9; then
        export CUDA_VISIBLE_DEVICES="$device"
        exec "$@"
    fi
done
echo "each GPU of this machine has a worker already: start fewer (--scale gpu=...)" >&2
exit 1
