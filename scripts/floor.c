/*
 * The floor of scripts/bench: the least that a TCP proxy with two blocking threads per connection
 * can do. What separates a proxy of that design from this one is its own; what separates this one
 * from nginx or HAProxy is the design.
 *
 *     floor PORT NEXT_PORT        both on 127.0.0.1
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 16384, STACK_BYTES = 65536, BACKLOG = 4096 };

struct pair {
    int client, server;
    atomic_int pumps; /* that still run; the last one closes both sockets */
};

static struct sockaddr_in next_hop;
static pthread_attr_t small_detached;

static struct sockaddr_in local(const char *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void pump(struct pair *pair, int from, int to)
{
    char buffer[READ_BYTES];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0) {
        for (ssize_t sent = 0, part; sent < got; sent += part)
            if ((part = write(to, buffer + sent, (size_t)(got - sent))) < 0)
                goto end;
    }
end:
    shutdown(to, SHUT_WR);
    if (atomic_fetch_sub(&pair->pumps, 1) == 1) {
        close(pair->client);
        close(pair->server);
        free(pair);
    }
}

static void *down(void *arg)
{
    struct pair *pair = arg;
    pump(pair, pair->server, pair->client);
    return NULL;
}

static void *up(void *arg)
{
    struct pair *pair = arg;
    pthread_t thread;
    int one = 1;
    pair->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(pair->client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(pair->server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(pair->server, (struct sockaddr *)&next_hop, sizeof next_hop) != 0
        || pthread_create(&thread, &small_detached, down, pair) != 0) {
        perror("floor: next hop");
        close(pair->client);
        close(pair->server);
        free(pair);
        return NULL;
    }
    pump(pair, pair->client, pair->server);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: floor PORT NEXT_PORT\n");
        return 2;
    }
    struct sockaddr_in here = local(argv[1]);
    next_hop = local(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    pthread_attr_init(&small_detached);
    pthread_attr_setstacksize(&small_detached, STACK_BYTES);
    pthread_attr_setdetachstate(&small_detached, PTHREAD_CREATE_DETACHED);

    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0
        || listen(listener, BACKLOG) != 0) {
        perror("floor: listen");
        return 1;
    }
    for (;;) {
        pthread_t thread;
        struct pair *pair = calloc(1, sizeof *pair);
        if (pair == NULL || (pair->client = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0) {
            perror("floor: accept");
            return 1;
        }
        atomic_init(&pair->pumps, 2);
        if (pthread_create(&thread, &small_detached, up, pair) != 0) {
            perror("floor: thread");
            return 1;
        }
    }
}
