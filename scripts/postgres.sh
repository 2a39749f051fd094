# Sourced by scripts/demo and scripts/test: installs what is missing, on Debian and Ubuntu. Not run by itself.

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# As root, by sudo if need be.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "this needs root, and there is no sudo: run as root: $*"
    return 1
  fi
}

# apt_install PACKAGE...: without questions, without touching files that somebody has changed.
apt_install() {
  if ! command -v apt-get >/dev/null; then
    say "install these by hand, there is no apt-get: $*"
    return 1
  fi
  say "installing: $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" >/dev/null
}

has_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

# PostgreSQL's programs only: Debian's own cluster, which would take port 5432, is neither made nor started.
install_postgres() {
  has_postgres && return
  local dir=/etc/postgresql-common/createcluster.d
  as_root mkdir -p "$dir"
  echo 'create_main_cluster = false' | as_root tee "$dir/pgsluice.conf" >/dev/null
  local result=0
  apt_install postgresql || result=$?
  # Later installations of PostgreSQL are none of our business.
  as_root rm -f "$dir/pgsluice.conf"
  return "$result"
}

# For tests that start their own: Debian's services are not started.
install_without_services() {
  local policy=/usr/sbin/policy-rc.d made= result=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    made=yes
  fi
  apt_install "$@" || result=$?
  [ -z "$made" ] || as_root rm -f "$policy"
  return "$result"
}

# Patroni and its store.
install_patroni() {
  command -v patroni >/dev/null && command -v etcd >/dev/null && return
  local result=0
  install_without_services etcd-server patroni python3-etcd || result=$?
  if command -v systemctl >/dev/null; then
    as_root systemctl disable --quiet etcd patroni 2>/dev/null || true
  fi
  return "$result"
}

# `ip`, for the test that cuts networks, which runs as root only.
install_iproute() {
  [ "$(id -u)" -ne 0 ] || command -v ip >/dev/null || apt_install iproute2
}

# For the newest PostgreSQL of the distribution.
install_repmgr() {
  local bin
  bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
  [ -n "$bin" ] || return
  [ -x "$bin/repmgr" ] || install_without_services "postgresql-$(basename "$(dirname "$bin")")-repmgr"
}

install_compiler() {
  command -v cc >/dev/null || apt_install gcc libc6-dev
}

# What the feature pg-grammar needs to be built: PostgreSQL's grammar is C, and its interface is read by libclang.
install_libclang() {
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null && return
  apt_install libclang-dev
}

need_cargo() {
  command -v cargo >/dev/null && return
  if [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
    return
  fi
  say "Rust is missing: see https://rustup.rs"
  return 1
}
