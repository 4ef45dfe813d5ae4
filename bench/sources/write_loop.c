/* The least that a fan-out can cost: one write(2) for each event and socket. argv is EVENTS RATE SIZE SUBSCRIBERS; the
   protocol is told in bench/duel.py. Sockets block, so a burst is as fast as the slowest reader. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    long events = atol(argv[1]), rate = atol(argv[2]), size = atol(argv[3]), n = atol(argv[4]);
    int listener = socket(AF_INET, SOCK_STREAM, 0), *sockets = calloc(n, sizeof(int));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof a;
    char line[4096], *frame = malloc(size + 4);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) return 1;
    getsockname(listener, (void *)&a, &length);
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    for (long i = 0; i < n; i++) {
        const char *hello = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        sockets[i] = accept(listener, 0, 0);
        /* As every WebSocket server does; with Nagle's algorithm most of these writes would send nothing. */
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (read(sockets[i], line, sizeof line) <= 0 || write(sockets[i], hello, strlen(hello)) < 0) return 1;
    }
    memset(frame, 'x', size + 4);
    frame[0] = (char)0x81; frame[1] = 126; frame[2] = (char)(size >> 8); frame[3] = (char)(size & 255);
    if (!fgets(line, sizeof line, stdin)) return 1;
    double before = cpu();
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long e = 0; e < events; e++) {
        if (e == events - 1) memcpy(frame + size + 4 - 7, "~END~\"}", 7);
        if (rate) {
            next.tv_nsec += 1000000000 / rate;
            if (next.tv_nsec >= 1000000000) { next.tv_nsec -= 1000000000; next.tv_sec++; }
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
        }
        for (long i = 0; i < n; i++)
            if (write(sockets[i], frame, size + 4) != size + 4) return 1;
    }
    if (!fgets(line, sizeof line, stdin)) return 1;
    printf("%f\n", cpu() - before);
    return 0;
}
