#!/bin/sh
# Verdicts of a server on files, as JSON, with curl: sh examples/score.sh http://localhost:8501 a.jpg b.mp4
# A token comes from the environment variable TFDETECT_TOKEN. The exit code is 2 if a file was not judged.
# A long video is a job: its progress is at URL/v1/jobs/ID, with `curl --no-buffer` as events at URL/v1/jobs/ID/events.
set -eu
url=$1 code=0
shift
header=${TFDETECT_TOKEN:+"Authorization: Bearer $TFDETECT_TOKEN"}
ask() {  # sets answer; prints the sentence of an error
  answer=$(printf '%s' "$header" | curl --silent --show-error --fail-with-body --header @- "$@" 2>&1) && return
  printf '%s\n' "$answer" | sed 's/^{"error": *"\(.*\)"}.*/\1/; /^curl: (22)/d' >&2
  return 1
}
for file in "$@"; do
  ask --form "file=@\"$file\"" "$url/v1/score" || { code=2; continue; }
  job=$(printf '%s' "$answer" | sed -n 's/^{"job": *"\([^"]*\)".*/\1/p')
  while [ -n "$job" ]; do
    ask "$url/v1/jobs/$job" || { code=2; continue 2; }
    case $answer in *'"state":"done"'* | *'"state": "done"'* | *'"state":"failed"'* | *'"state": "failed"'*) break ;; esac
    sleep 1
  done
  printf '%s\n' "$answer"
  case $answer in *'"findings":[]'* | *'"findings": []'* | *'"state":"failed"'* | *'"state": "failed"'*) code=2 ;; esac
done
exit $code
