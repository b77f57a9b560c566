#!/usr/bin/env bash
# Starts a run on this host, in the background and once: start.sh NAME CHECK RUN, the last
# two being lines of a shell. The host keeps in its home NAME.log, NAME.pid and, once the
# run has ended, NAME.exit; NAME.env, where it is there, has the environment.
set -euo pipefail
name=$1 check=$2 run=$3
cd "$(dirname "$0")/.."
# Whatever the run starts inherits the lock: it is free once all of that has gone.
exec 9> ~/"$name.lock"
flock --nonblock --conflict-exit-code 100 9 || {
  code=$?
  # Any other code is flock's own failure, and says nothing about a run.
  [ "$code" = 100 ] || exit "$code"
  echo "$(hostname): $name runs already"
  exit 0
}
rm -f ~/"$name.exit"
if [ -f ~/"$name.env" ]; then
  set -a
  . ~/"$name.env"
  set +a
fi
export NAME="$name"
setsid --fork bash -c "
  echo \$\$ > ~/\"\$NAME.pid\"
  $check || { code=\$?; echo \$code > ~/\"\$NAME.exit\"; exit \$code; }
  exec $run" >> ~/"$name.log" 2>&1 < /dev/null
echo "$(hostname): $name started; its log is ~/$name.log"
