/* The program around Go code. */
#include "libgo.h"

int main(void) {
    Build(100);
    Point();
    return 0;
}
