/* Two Go runtimes in one process: loads the libraries that are named, builds in both, and lets the first tell its truth. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void (*point)(void) = 0;
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        void (*build)(int) = (void (*)(int))dlsym(library, "Build");
        build(100);
        if (i == 1)
            point = (void (*)(void))dlsym(library, "Point");
    }
    point();
    return 0;
}
