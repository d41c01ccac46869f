# Owns the connectivity matrix: who reaches whom, found out by real connections over IPv4 and IPv6.
# shellcheck shell=bash disable=SC2153,SC2154
#
# The caller fills, in order of printing:
#   FROM=(name…)              who connects; NETNS[name] is the path of its network namespace
#   TO=(name:port/tcp…)       to what; ADDRESSES["from to"] holds the addresses to use, "ADDRESS PORT" one per line

# shellcheck disable=SC2034 # filled by callers
declare -A NETNS ADDRESSES

# probe NETNS ADDRESS PORT: whether a TCP connection can be made within a second.
probe() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  nsenter --net="$1" timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>/dev/null
}

# matrix_probe FOLDER: makes all connections at once; FOLDER/"FROM TO" gets one word: yes, no, or v4 or v6 if only that.
matrix_probe() {
  local from to address port jobs=0
  mkdir -p "$1"
  for from in "${FROM[@]}"; do
    for to in "${TO[@]}"; do
      [[ -n ${ADDRESSES["$from $to"]:-} ]] || continue
      {
        v4='' v6=''
        while read -r address port; do
          if probe "${NETNS[$from]}" "$address" "$port"; then word=yes; else word=no; fi
          if [[ $address == *:* ]]; then v6=$word; else v4=$word; fi
        done <<<"${ADDRESSES["$from $to"]}"
        case $v4/$v6 in
          yes/yes | yes/ | /yes) word=yes ;;
          yes/no) word=v4 ;;
          no/yes) word=v6 ;;
          *) word=no ;;
        esac
        echo "$word" >"$1/$(matrix_key "$from" "$to")"
      } &
      # All at once would be slow to start; sixteen keep two processors busy.
      ((++jobs % 16)) || wait
    done
  done
  wait
}

matrix_key() { echo "${1//\//_} ${2//\//_}"; }
# matrix_cell FOLDER FROM TO: the word, or nothing where no connection was tried.
matrix_cell() { cat "$1/$(matrix_key "$2" "$3")" 2>/dev/null || true; }

# matrix_print FOLDER: the table, on stdout.
matrix_print() {
  local from to word colour
  printf '  %-10s' 'from \ to'
  for to in "${TO[@]}"; do printf ' %-14s' "${to%/tcp}"; done
  printf '\n'
  for from in "${FROM[@]}"; do
    printf '  %-10s' "$from"
    for to in "${TO[@]}"; do
      word=$(matrix_cell "$1" "$from" "$to")
      case $word in
        yes) colour=$GREEN ;;
        '') word=- colour=$DIM ;;
        *) colour=$RED ;;
      esac
      printf ' %s%-14s%s' "$colour" "$word" "$PLAIN"
    done
    printf '\n'
  done
}
