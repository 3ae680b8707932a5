# Sourced: sets $PYTHON to a Python 3.11 or newer that has pip or ensurepip, or stops.
usable='import sys, importlib.util as u
sys.exit(sys.version_info < (3, 11) or sys.version_info >= (3, 15) or not (u.find_spec("pip") or u.find_spec("ensurepip")))'
for PYTHON in ${Q_PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
  if command -v "$PYTHON" >/dev/null 2>&1 && "$PYTHON" -c "$usable" >/dev/null 2>&1; then
    PYTHON=$("$PYTHON" -c 'import sys; print(sys.executable)')
    export PYTHON
    unset usable
    return 0
  fi
done
echo "$(basename -- "$0"): needs Python 3.11 or newer with pip, and found none; name one with Q_PYTHON=/path/to/python" >&2
exit 1
