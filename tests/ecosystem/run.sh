#!/usr/bin/env bash
# Tries the newest releases of other tools, and writes what came of it into the table of docs/ecosystem.md.
#
#   tests/ecosystem/run.sh [--keep FOLDER] [GROUP...]
#
# A group has a fresh environment (6 GB, removed after it): general, dense or razor; by default all of them.
# --keep leaves environments, logs and reports in FOLDER. PYTHON is the interpreter, python3 by default. VALIDATE
# is the path of timm's validate.py, which its wheel lacks; without it that one example is not run.
set -eu
cd "$(dirname "$0")/../.."

keep=
groups=()
while [ $# -gt 0 ]; do
  case $1 in
    --keep)
      mkdir -p "${2:?--keep needs a folder}"
      keep=$(cd "$2" && pwd)
      shift
      ;;
    general | dense | razor) groups+=("$1") ;;
    *)
      echo "There is no group '$1': choose general, dense or razor" >&2
      exit 2
      ;;
  esac
  shift
done
[ ${#groups[@]} -gt 0 ] || groups=(general dense razor)
folder=$keep
if [ -z "$keep" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi

# mmseg, mmdet and mmrazor refuse mmcv 2.2. mmseg does not tell pip that it needs ftfy and regex.
choose() {
  tools=()
  tests=(tests/ecosystem/test_dense*.py)
  case $1 in
    general)
      tools=(transformers timm peft optuna wandb tensorboard 'grad-cam<1.5')
      tests=(tests/ecosystem tests/test_mmpretrain_tools.py tests/apis/test_export.py)
      ;;
    dense) tools=(mmsegmentation mmdet 'mmcv-lite<2.2' ftfy regex) ;;
    razor) tools=(mmrazor 'mmcv-lite<2.2') ;;
  esac
}

failed=0
reports=()
for group in "${groups[@]}"; do
  choose "$group"
  env=$folder/$group
  echo "$group: ${tools[*]}"
  rm -rf "$env"
  "${PYTHON:-python3}" -m venv "$env"
  if ! "$env/bin/python" -m pip install -e '.[standalone,tests]' "${tools[@]}" >"$env.install.log" 2>&1; then
    tail -n 20 "$env.install.log" >&2
    echo "$group cannot be installed; its rows stay as they are" >&2
    failed=1
    continue
  fi
  "$env/bin/python" -m pip list --disable-pip-version-check --format json >"$env.json"
  "$env/bin/python" -m pytest -q -p no:cacheprovider --junitxml "$env.xml" "${tests[@]}" >"$env.log" 2>&1 || failed=1
  tail -n 1 "$env.log"
  reports+=("$env.xml")
  [ -n "$keep" ] || rm -rf "$env"
done
[ ${#reports[@]} -eq 0 ] || "${PYTHON:-python3}" tests/ecosystem/table.py "${reports[@]}"
exit $failed
