//! Owns the table of sample images: each must resolve to its one model, and each model must be hit.

use std::collections::BTreeSet;

use crate::metadata::{Runtime, Workload, WorkloadId};
use crate::model::{Catalogue, Overrides, Resolution, resolve};

/// Image references and their models; an empty model is unknown.
const SAMPLES: &str = "
nginx                                             nginx
nginx:1.27-alpine                                 nginx
docker.io/library/nginx:latest                    nginx
index.docker.io/library/nginx                     nginx
nginx@sha256:4c0fdaa8b6341bfdeca5f18f7837462c80cff90527ee35ef185571e1c327beac nginx
openresty/openresty:alpine                        nginx
mirror.gcr.io/library/nginx                       nginx
httpd:2.4                                         httpd
caddy:2                                           caddy
traefik:v3.1                                      traefik
haproxy:lts                                       haproxy
envoyproxy/envoy:v1.31-latest                     envoy
varnish                                           varnish
kong:3                                            kong
jc21/nginx-proxy-manager:latest                   nginx-proxy-manager
jwilder/nginx-proxy                               nginx-proxy
apache/apisix:3.9.0-debian                        apisix
quay.io/oauth2-proxy/oauth2-proxy:v7.6.0          oauth2-proxy
ubuntu/squid                                      squid
cloudflare/cloudflared                            cloudflared
tecnativa/docker-socket-proxy                     docker-socket-proxy
linuxserver/wireguard                             wireguard
kylemanna/openvpn                                 openvpn
tailscale/tailscale:stable                        tailscale
pihole/pihole                                     pihole
postgres:16-alpine                                postgres
bitnami/postgresql:16                             postgres
postgis/postgis:16-3.4                            postgres
timescale/timescaledb:latest-pg16                 postgres
registry:5000/bitnami/postgresql                  postgres
harbor.example.org/hub/library/postgres:15        postgres
registry.example.org/team/postgres                postgres
edoburu/pgbouncer                                 pgbouncer
mysql:8                                           mysql
registry:5000/team/mysql:8@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef mysql
registry:5000/mysql                               mysql
percona:8.0                                       mysql
mariadb:11                                        mariadb
linuxserver/mariadb                               mariadb
mongo:7                                           mongo
cockroachdb/cockroach:latest                      cockroachdb
couchdb:3                                         couchdb
cassandra:5                                       cassandra
scylladb/scylla                                   scylladb
clickhouse/clickhouse-server                      clickhouse
influxdb:2.7                                      influxdb
neo4j:5                                           neo4j
mcr.microsoft.com/mssql/server:2022-latest        mssql
gvenzl/oracle-xe:21-slim                          oracle
questdb/questdb                                   questdb
rethinkdb                                         rethinkdb
arangodb:3.12                                     arangodb
surrealdb/surrealdb:latest                        surrealdb
qdrant/qdrant                                     qdrant
redis:7-alpine                                    redis
redis/redis-stack                                 redis
public.ecr.aws/docker/library/redis:7             redis
valkey/valkey:8                                   valkey
eqalpha/keydb                                     keydb
docker.dragonflydb.io/dragonflydb/dragonfly       dragonfly
memcached:1.6                                     memcached
rabbitmq:3-management                             rabbitmq
apache/kafka:3.8.0                                kafka
confluentinc/cp-kafka:7.6.0                       kafka
bitnami/kafka:3.7                                 kafka
confluentinc/cp-schema-registry                   schema-registry
debezium/connect:2.7                              kafka-connect
docker.redpanda.com/redpandadata/redpanda:v24.2.1 redpanda
nats:2                                            nats
eclipse-mosquitto:2                               mosquitto
emqx/emqx:5.7                                     emqx
apache/activemq-classic                           activemq
apachepulsar/pulsar:3.3.0                         pulsar
docker.elastic.co/elasticsearch/elasticsearch:8.15.0 elasticsearch
opensearchproject/opensearch:2                    opensearch
kibana:8.15.0                                     kibana
opensearchproject/opensearch-dashboards:2         opensearch-dashboards
getmeili/meilisearch:v1.9                         meilisearch
typesense/typesense:27.0                          typesense
solr:9                                            solr
prom/prometheus                                   prometheus
quay.io/prometheus/prometheus:v2.54.0             prometheus
prom/alertmanager                                 alertmanager
grafana/grafana-oss:11.1.0                        grafana
ghcr.io/grafana/grafana                           grafana
grafana/loki:3.1.0                                loki
grafana/tempo                                     tempo
grafana/promtail                                  promtail
grafana/alloy                                     alloy
quay.io/prometheus/node-exporter:latest           node-exporter
gcr.io/cadvisor/cadvisor:v0.49.1                  cadvisor
prom/blackbox-exporter                            blackbox-exporter
prometheuscommunity/postgres-exporter             postgres-exporter
prom/mysqld-exporter                              mysqld-exporter
oliver006/redis_exporter                          redis-exporter
percona/mongodb_exporter:0.40                     mongodb-exporter
nginx/nginx-prometheus-exporter:1.3               nginx-exporter
quay.io/prometheuscommunity/elasticsearch-exporter elasticsearch-exporter
danielqsj/kafka-exporter                          kafka-exporter
prom/pushgateway                                  pushgateway
prom/statsd-exporter                              statsd-exporter
graphiteapp/graphite-statsd                       graphite
telegraf:1.31                                     telegraf
otel/opentelemetry-collector-contrib:0.107.0      otel-collector
jaegertracing/all-in-one:1.60                     jaeger
openzipkin/zipkin                                 zipkin
victoriametrics/victoria-metrics                  victoriametrics
fluent/fluentd:v1.17-1                            fluentd
cr.fluentbit.io/fluent/fluent-bit:3.1             fluent-bit
docker.elastic.co/logstash/logstash:8.15.0        logstash
docker.elastic.co/beats/filebeat:8.15.0           beats
graylog/graylog:6.0                               graylog
netdata/netdata                                   netdata
louislam/uptime-kuma:1                            uptime-kuma
quay.io/keycloak/keycloak:25.0                    keycloak
ghcr.io/goauthentik/server:2024.6                 authentik
authelia/authelia                                 authelia
osixia/openldap:1.5.0                             openldap
lldap/lldap:stable                                lldap
ghcr.io/dexidp/dex:v2.41.1                        dex
axllent/mailpit                                   mailpit
mailhog/mailhog:v1.0.1                            mailhog
boky/postfix                                      postfix
dovecot/dovecot                                   dovecot
ghcr.io/docker-mailserver/docker-mailserver:14    docker-mailserver
roundcube/roundcubemail                           roundcube
fauria/vsftpd                                     vsftpd
stilliard/pure-ftpd                               pure-ftpd
atmoz/sftp:alpine                                 sftp
drakkan/sftpgo                                    sftpgo
jenkins/jenkins:lts-jdk17                         jenkins
jenkins/inbound-agent                             jenkins-agent
gitea/gitea:1.22                                  gitea
codeberg.org/forgejo/forgejo:8                    gitea
gitlab/gitlab-ce                                  gitlab
gitlab/gitlab-runner:alpine                       gitlab-runner
woodpeckerci/woodpecker-server:v2.7.0             woodpecker
woodpeckerci/woodpecker-agent:v2.7.0              woodpecker-agent
registry:2                                        registry
sonatype/nexus3                                   nexus
sonarqube:community                               sonarqube
selenium/standalone-chrome:4.23                   selenium
docker:27-dind                                    docker-dind
minio/minio:RELEASE.2024-08-03T04-33-23Z          minio
chrislusf/seaweedfs                               seaweedfs
quay.io/coreos/etcd:v3.5.15                       etcd
hashicorp/consul:1.19                             consul
hashicorp/vault:1.17                              vault
registry.k8s.io/pause:3.9                         pause
bitnamilegacy/kafka:3.7                           kafka
bitnamilegacy/postgresql:16                       postgres
zookeeper:3.9                                     zookeeper
adminer                                           adminer
phpmyadmin                                        phpmyadmin
dpage/pgadmin4                                    pgadmin
mongo-express:1                                   mongo-express
redis/redisinsight                                redis-commander
provectuslabs/kafka-ui                            kafka-ui
portainer/portainer-ce:2.20.3                     portainer
containrrr/watchtower                             watchtower
certbot/certbot                                   certbot
wordpress:6-php8.3-fpm                            wordpress
nextcloud:29-fpm-alpine                           nextcloud
ghost:5                                           ghost
drupal:10                                         drupal
joomla:5                                          joomla
mediawiki:1.42                                    mediawiki
matomo:5                                          matomo
docker.n8n.io/n8nio/n8n                           n8n
vaultwarden/server:1.31.0                         vaultwarden
ghcr.io/home-assistant/home-assistant:stable      home-assistant
nodered/node-red                                  node-red
mattermost/mattermost-team-edition:9.11           mattermost
odoo:17                                           odoo
metabase/metabase                                 metabase
tomcat:10-jdk17                                   tomcat
node:20-alpine                                    node
python:3.12-slim                                  python
tiangolo/uwsgi-nginx-flask                        uwsgi
ruby:3.3                                          ruby
golang:1.22                                       golang
php:8.3-fpm                                       php
eclipse-temurin:21-jre                            java
openjdk:17                                        java
amazoncorretto:21                                 java
mcr.microsoft.com/dotnet/aspnet:8.0               dotnet
rust:1.80                                         rust
elixir:1.17                                       elixir
perl:5.40                                         perl
denoland/deno:1.45.5                              deno
oven/bun:1                                        bun
debian:12
debian
alpine:3.20
ubuntu:24.04
busybox
fedora:40
evil/nginx
evil/nginx:latest
nginx.example.org/app
registry:5000/nginx
evil/postgres-exporter
evil/postgres-client
evil/nginx-postgres
evil/mysqldump
team/my-postgres
bitnamilegacy/unknown
postgresql-client
team/node
team/python-worker
team/registry
evil/kafka
team/app
registry:5000/team/shop-api:1.2
localhost/web
ghcr.io/somebody/prometheus-rules
keycloak-theme
dotnet/aspnet
mssql/server
goauthentik/redis-proxy
shop_web
shop-db
xmysql/mysqlx
";

fn resolve_image(image: &str, catalogue: &Catalogue) -> Resolution {
    let mut workload = Workload::new(WorkloadId::new("w"), "w".into(), Runtime::File);
    workload.image.reference = Some(image.parse().unwrap());
    resolve(&workload, catalogue, &Overrides::default())
}

fn samples() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    SAMPLES.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()))
    })
}

#[test]
fn every_sample_resolves_to_exactly_its_model() {
    let catalogue = Catalogue::builtin().unwrap();
    let mut wrong = Vec::new();
    for (image, model) in samples() {
        let found = resolve_image(image, &catalogue);
        if found.model.as_ref().map(|name| name.as_str()) != model {
            wrong.push(format!("{image}: wanted {model:?}, found {:?}", found.model));
        }
        assert_eq!(found.model.is_some(), found.reason.is_none(), "{image}");
        assert_eq!(found.model.is_some(), found.confidence >= 0.6, "{image}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_model_is_hit_by_a_sample() {
    let catalogue = Catalogue::builtin().unwrap();
    let hit: BTreeSet<_> = samples().filter_map(|(_, model)| model).collect();
    let missed: Vec<_> = catalogue
        .models
        .keys()
        .map(|name| name.as_str())
        .filter(|name| !hit.contains(name))
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_claimed_image_resolves_to_its_own_model_in_any_registry() {
    let catalogue = Catalogue::builtin().unwrap();
    for model in catalogue.models.values() {
        for image in &model.images {
            let found = resolve_image(&image.to_string(), &catalogue);
            assert_eq!(found.model.as_ref(), Some(&model.name), "{image}");
            if image.repository.contains('/') {
                let copy = format!("registry.example.org:5000/{}:1", image.repository);
                let found = resolve_image(&copy, &catalogue);
                assert_eq!(found.model.as_ref(), Some(&model.name), "{copy}");
            }
        }
    }
}
