#!/usr/bin/env bash
# Add the slides of a folder that the sheet lacks, for inference, and map them. Made for cron; docs/cluster.md says how.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: new_slides.sh PROJECT SLIDES [options of snakemake]" >&2; exit 2; }
project=$(realpath "$1") slides=$(realpath --no-symlinks "$2") # as slides.roots may have it
shift 2
source=$(realpath "$(dirname "$0")/../..")
cd "$project"

exec 9> .new_slides.lock
flock --nonblock 9 || { echo "the last run is still going on"; exit 0; }

PYTHONPATH="$source/scripts" "$source/.venv/bin/python" -m lesionmap.run.new_slides slides.tsv "$slides"
exec "$source/.venv/bin/snakemake" --snakefile "$source/Snakefile" --workflow-profile "$source/profiles/slurm" \
  "$@" --configfile config.yaml
