#!/usr/bin/env bash
# Install what the tests of the cluster profile need: Debian's SLURM and MUNGE, without starting their services.
set -euo pipefail
packages="slurmctld slurmd slurmdbd slurm-client munge mariadb-server"
PATH=$PATH:/usr/sbin
for program in slurmctld slurmd slurmdbd sbatch munged mariadbd; do
  command -v $program > /dev/null || missing=yes
done
[ -n "${missing:-}" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "make test-slurm needs these packages (and root, to put a configuration into /etc/slurm): apt-get install $packages" >&2
  exit 1
fi
policy=/usr/sbin/policy-rc.d # while it says 101, no package starts a service
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends $packages > /dev/null
