#!/bin/sh
# Verdicts of a server on files, as JSON, with curl: sh examples/score.sh http://localhost:8501 a.jpg b.mp4
# A long video is a job: its progress is at URL/v1/jobs/ID, with `curl --no-buffer` as events at URL/v1/jobs/ID/events.
set -eu
url=$1
shift
ask() {  # sets answer; prints it to standard error if it is an error
  answer=$(curl --silent --show-error --fail-with-body "$@") || { printf '%s\n' "$answer" >&2; exit 1; }
}
for file in "$@"; do
  ask --form "file=@\"$file\"" "$url/v1/score"
  job=$(printf '%s' "$answer" | sed -n 's/^{"job": *"\([^"]*\)".*/\1/p')
  while [ -n "$job" ]; do
    ask "$url/v1/jobs/$job"
    case $answer in *'"state":"done"'* | *'"state": "done"'* | *'"state":"failed"'* | *'"state": "failed"'*) break ;; esac
    sleep 1
  done
  printf '%s\n' "$answer"
done
