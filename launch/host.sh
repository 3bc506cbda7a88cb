#!/usr/bin/env bash
# On a host, in the copied folder: launch/host.sh WITH CRASHES WORDS... sets up .venv as `make install
# WITH=...` does, with a Python of its own, and starts `python -m experiments WORDS` in the background,
# where it goes on when the connection ends: output in run.log, its process in moe.pid.
set -euo pipefail
with=$1 crashes=$2
shift 2
if [ ! -x .venv/bin/python ]; then
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 .venv
fi
files=(-r requirements.txt)
for name in $with; do files+=(-r "requirements-$name.txt"); done
.venv/bin/python -m pip install --quiet -c constraints/py312.txt "${files[@]}"
setsid nohup .venv/bin/python -m launch.again "--crashes=$crashes" -- \
    .venv/bin/python -m experiments "$@" >> run.log 2>&1 < /dev/null &
echo $! > moe.pid
echo "started: moe/run.log"
