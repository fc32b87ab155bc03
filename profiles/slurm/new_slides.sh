#!/usr/bin/env bash
# Add the slides of a folder that the sheet lacks, for inference, and map them. Made for cron; docs/cluster.md says how.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: new_slides.sh PROJECT SLIDES [options of snakemake]" >&2; exit 2; }
project=$(realpath "$1") slides=$(realpath "$2")
shift 2
source=$(realpath "$(dirname "$0")/../..")
cd "$project"

exec 9> .new_slides.lock
flock --nonblock 9 || { echo "the last run is still going on"; exit 0; }

[ -e slides.tsv ] || printf 'slide\tpath\tsplit\n' > slides.tsv
# Files that changed within the last hour are perhaps still being copied; next time.
find "$slides" -type f -mmin +60 -regextype posix-extended \
  -iregex '.*\.(svs|tiff?|ndpi|scn|mrxs|bif|svslide)' | sort | while read -r path; do
  cut -f2 slides.tsv | grep --quiet --line-regexp --fixed-strings -- "$path" && continue
  name=${path#"$slides/"}
  name=$(echo "${name%.*}" | tr -c 'A-Za-z0-9._\n-' _ | sed 's/^[._-]*//') # as ids of the sheet may be
  printf '%s\t%s\tinference\n' "$name" "$path" >> slides.tsv
done

exec "$source/.venv/bin/snakemake" --snakefile "$source/Snakefile" --workflow-profile "$source/profiles/slurm" \
  "$@" --configfile "$source/config/config.yaml" config.yaml
