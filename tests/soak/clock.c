/* Preloaded into a process whose wall clock is to be wrong, as that of a board is which has none. It runs on from where CLINIC_CLOCK
   (seconds beside the right time) puts it, and the kernel says that nobody disciplines it, unless CLINIC_SYNCHRONISED is set. All other
   clocks are right.

   Not libfaketime: its clock_nanosleep() knows no absolute times of the monotonic clock, which is how Python sleeps. */

typedef struct { long seconds, fraction; } moment;

enum { REALTIME = 0, REALTIME_COARSE = 5, TIME_ERROR = 5 };

extern void *dlsym(void *, const char *);
extern char *getenv(const char *);
extern long atol(const char *);

int clock_gettime(int clock, moment *now) {
    static int (*right)(int, moment *);
    static long offset;
    if (!right) {
        char *text = getenv("CLINIC_CLOCK");
        offset = text ? atol(text) : 0;
        right = dlsym((void *)-1L, "clock_gettime"); /* -1: RTLD_NEXT */
    }
    int code = right(clock, now);
    if (code == 0 && (clock == REALTIME || clock == REALTIME_COARSE)) now->seconds += offset;
    return code;
}

int gettimeofday(moment *now, void *zone) {
    int code = clock_gettime(REALTIME, now);
    now->fraction /= 1000;
    return code;
}

long time(long *now) {
    moment moment;
    clock_gettime(REALTIME, &moment);
    if (now) *now = moment.seconds;
    return moment.seconds;
}

int adjtimex(void *state) { return getenv("CLINIC_SYNCHRONISED") ? 0 : TIME_ERROR; }
