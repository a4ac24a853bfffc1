// Waits of C11 threads by a clock that is not the machine's. libfaketime shows a program another time of day and knows that the deadlines of
// pthread_cond_timedwait are of that time; those of cnd_timedwait it does not know. In the C library of GNU both work on the same types, so one becomes
// the other.
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t) && sizeof(mtx_t) >= sizeof(pthread_mutex_t), "C11 threads are not POSIX threads here");

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline) {
    int waited = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, deadline);
    return waited == 0 ? thrd_success : waited == ETIMEDOUT ? thrd_timedout : thrd_error;
}
