#!/bin/sh
# Build the TensorRT engine of the shipped network on a Jetson (JetPack 6), look at what it answers, and time it.
#
#     build-engine.sh chest.onnx FOLDER
#
# Beside the file lies the network's folder (chest) with its golden inputs. Writes FOLDER/chest.engine once its scores for the golden inputs are those of golden-scores.json, else nothing. An engine is for this
# board and this TensorRT alone: never copy one. The device itself does not use it; see docs/reference/boards.md. Not tried on a board.
set -eu

stop() {
    echo "build-engine: $1" >&2
    exit 2
}

[ $# = 2 ] || stop "give the ONNX file and the folder for the engine: build-engine.sh chest.onnx FOLDER"
onnx=$1 folder=$2
here=$(dirname "$0")
[ -f "$onnx" ] || stop "$onnx is not there; it lies beside the network's folder, edge/models/chest.onnx."
golden="${onnx%.onnx}/golden"
[ -d "$golden" ] || stop "$golden is not there: the file is to lie beside the network's folder, as in edge/models."
[ -d "$folder" ] || stop "the folder $folder is not there; make it first."

machine=$(uname -m)
[ "$machine" = aarch64 ] || stop "this machine is $machine; an engine is built on the Jetson that runs it."
release=$(dpkg-query --show --showformat '${Version}' nvidia-l4t-core 2>/dev/null) ||
    stop "nvidia-l4t-core is not installed, so this is no Jetson with JetPack."
case $release in
    36.*) ;;
    *) stop "this is Jetson Linux $release; the file needs JetPack 6 (Jetson Linux 36): TensorRT 8.6 is the first that reads it." ;;
esac
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$trtexec" ] || stop "trtexec is not there. Install it: apt install tensorrt"

work=$(mktemp -d "$folder/.engine-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Full 32-bit floats: with TF32 or 16 bits a close call between two classes falls otherwise than on the other devices of a fleet.
echo "Building the engine; this takes some minutes."
"$trtexec" --onnx="$onnx" --noTF32 --saveEngine="$work/chest.engine" >"$work/build.log" 2>&1 || {
    tail -n 5 "$work/build.log" >&2
    stop "trtexec could not build the engine; its last words are above."
}
for picture in "$golden"/*.pgm; do
    name=$(basename "$picture" .pgm)
    python3 "$here/golden.py" input "$picture" "$work/$name.raw" || stop "the golden input $name cannot be read."
    "$trtexec" --loadEngine="$work/chest.engine" --noTF32 --loadInputs="picture:$work/$name.raw" \
        --exportOutput="$work/$name.json" >"$work/run.log" 2>&1 || stop "the engine was built and does not run."
    python3 "$here/golden.py" compare "$picture" "$work/$name.json" ||
        stop "this engine answers otherwise than the network; it was not kept. Report the versions of JetPack and TensorRT."
done
grep 'GPU Compute Time' "$work/run.log" || true
mv "$work/chest.engine" "$folder/chest.engine"
echo "Wrote $folder/chest.engine."
