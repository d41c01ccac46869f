#!/usr/bin/env bash
# docker-user.sh: a firewall for one application as a user would write it. `app` may connect to `db` on TCP 5432 and do
# nothing else; the rules follow the containers' addresses. Docker is found by DOCKER_HOST.
set -uo pipefail

address() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1" 2>/dev/null; }

rules() { # rules -I|-D APP DB: inserts or takes away those for two addresses. The last one inserted comes first.
  [[ -n $2 ]] || return 0
  iptables -w "$1" DOCKER-USER -s "$2" -j DROP
  iptables -w "$1" DOCKER-USER -s "$2" -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
  [[ -z $3 ]] || iptables -w "$1" DOCKER-USER -s "$2" -d "$3" -p tcp --dport 5432 -j RETURN
}

app='' db=''
follow() {
  local old_app=$app old_db=$db
  app=$(address app) db=$(address db)
  # The new ones first: in between more is denied, never less.
  rules -I "$app" "$db"
  rules -D "$old_app" "$old_db"
}

while read -r name; do
  case $name in app | db) follow ;; esac
done < <(echo app && exec docker events --filter event=start --format '{{.Actor.Attributes.name}}')
