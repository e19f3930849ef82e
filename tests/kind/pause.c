/* The process that holds a pod's namespaces: it reaps what is orphaned in them and ends when it is told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_child(int sig) {
    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static void on_stop(int sig) {
    (void)sig;
    _exit(0);
}

int main(void) {
    struct sigaction child = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP};
    struct sigaction stop = {.sa_handler = on_stop};
    sigaction(SIGCHLD, &child, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    for (;;)
        pause();
}
