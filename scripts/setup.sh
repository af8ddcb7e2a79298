# Sourced by the scripts: updates .venv from a lock file, and installs or names missing packages.
# shellcheck shell=bash

say() { printf '%s\n' "relay: $*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -P -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is needed. Install it with: sudo apt-get install python3"
}

# ensure_environment LOCK: installs LOCK and the relay into .venv; does nothing if they are up to date.
ensure_environment() {
  local lock=$1 stamp=.venv/.relay-stamp wanted python
  wanted=$(cat "$lock" pyproject.toml | cksum)
  if [ -x .venv/bin/relay ] && [ -f "$stamp" ] && grep -qxF "$lock $wanted" "$stamp"; then
    return
  fi
  # The development lock is a superset, so the .venv of the tests is sufficient.
  if [ "$lock" = scripts/requirements.lock ] && [ -x .venv/bin/relay ] && [ -f "$stamp" ] &&
    grep -qxF "scripts/requirements-dev.lock $(cat scripts/requirements-dev.lock pyproject.toml | cksum)" "$stamp"; then
    return
  fi
  python=$(find_python) || exit 1
  say "installing packages into .venv; this takes about a minute"
  if command -v uv >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || uv venv --quiet --python "$python" .venv || die "could not create .venv with uv"
    uv pip install --quiet --python .venv/bin/python --require-hashes -r "$lock" ||
      die "could not install the packages of $lock; check the network and run this again"
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e . || die "could not install relay itself"
  else
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -P -m pip --version >/dev/null 2>&1; then
      "$python" -P -m venv .venv || {
        rm -rf .venv
        die "could not create .venv. Install the venv module with: sudo apt-get install python3-venv"
      }
    fi
    .venv/bin/python -P -m pip install --quiet --require-hashes -r "$lock" ||
      die "could not install the packages of $lock; check the network and run this again"
    .venv/bin/python -P -m pip install --quiet --no-deps --no-build-isolation -e . || die "could not install relay itself"
  fi
  printf '%s %s\n' "$lock" "$wanted" >"$stamp"
}

# may_apt: whether this user may install system packages without a password.
may_apt() {
  command -v apt-get >/dev/null 2>&1 || return 1
  [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

apt_install() {
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1 && return
  "${sudo[@]}" apt-get update -qq >/dev/null 2>&1 &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1
}

# ensure_package PACKAGE PURPOSE TEST...: installs a Debian package if TEST fails; without the permission, prints the
# command and returns 1.
ensure_package() {
  local package=$1 purpose=$2
  shift 2
  "$@" >/dev/null 2>&1 && return 0
  if may_apt; then
    say "installing the Debian package $package ($purpose)"
    apt_install "$package" && "$@" >/dev/null 2>&1 && return 0
  fi
  say "$package is missing ($purpose). Install it with: sudo apt-get install $package"
  return 1
}

has_flite() { ldconfig -p 2>/dev/null | grep -q 'libflite\.so' || /sbin/ldconfig -p 2>/dev/null | grep -q 'libflite\.so'; }
has_chromium() { command -v chromium; }
has_nginx() { PATH=$PATH:/usr/sbin command -v nginx; }
has_haproxy() { PATH=$PATH:/usr/sbin command -v haproxy; }
has_cc() { printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -fsanitize=address -x c - -o /dev/null; }
