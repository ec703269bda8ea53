/* Finding the functions of libav.h in the libraries of PyAV's wheel. */

#define _GNU_SOURCE /* dladdr */
#include "libav.h"
#include "native.h"
#include <dlfcn.h>

#define DEFINE(result, name, arguments) result(*name) arguments;
FORMAT_FUNCTIONS(DEFINE)
CODEC_FUNCTIONS(DEFINE)
UTIL_FUNCTIONS(DEFINE)

int libav_is_loaded;

const char *libav_words(int code, char *text, size_t size)
{
    text[0] = '\0';
    if (code < 0)
        av_strerror(code, text, size);
    return text;
}

opener *libav_opener_of(struct container *container)
{
    const struct option *last = av_opt_find(container, "dump_separator", NULL, 0, 0);
    return last && last->offset > 0 ? (opener *)((char *)container + last->offset + sizeof(char *)) : NULL;
}

/* Whether a new container's opener is where we look for it: a function of libavformat's. */
static int has_opener(void)
{
    struct container *container = avformat_alloc_context();
    opener *found = container ? libav_opener_of(container) : NULL;
    Dl_info theirs, ours;
    int is_function = found && *found && dladdr(*(void **)found, &theirs) && dladdr(*(void **)&avformat_version, &ours) &&
                      theirs.dli_fbase == ours.dli_fbase;
    avformat_close_input(&container);
    return is_function;
}

/* Resolve what is used of libavformat, libavcodec and libavutil, given by path and by the major versions that are known;
 * raises ImportError where it is not there, or not what we know. Once loaded they stay.
 */
PyObject *libav_load(PyObject *module, PyObject *args)
{
    (void)module;
    const char *paths[3];
    unsigned majors[3];
    if (!PyArg_ParseTuple(args, "(yyy)(III)", &paths[0], &paths[1], &paths[2], &majors[0], &majors[1], &majors[2]))
        return NULL;
    if (libav_is_loaded)
        return Py_NewRef(Py_None);
    void *libraries[3];
    for (int i = 0; i < 3; i++) {
        libraries[i] = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (!libraries[i])
            return PyErr_Format(PyExc_ImportError, "%s", dlerror());
    }
    const char *missing = NULL;
#define RESOLVE(library, name)                                                                                         \
    if (!(*(void **)&name = dlsym(library, #name)))                                                                    \
        missing = #name;
#define RESOLVE_FORMAT(result, name, arguments) RESOLVE(libraries[0], name)
#define RESOLVE_CODEC(result, name, arguments) RESOLVE(libraries[1], name)
#define RESOLVE_UTIL(result, name, arguments) RESOLVE(libraries[2], name)
    FORMAT_FUNCTIONS(RESOLVE_FORMAT)
    CODEC_FUNCTIONS(RESOLVE_CODEC)
    UTIL_FUNCTIONS(RESOLVE_UTIL)
    if (missing)
        return PyErr_Format(PyExc_ImportError, "libav has no %s", missing);
    unsigned found[3] = {avformat_version() >> 16, avcodec_version() >> 16, avutil_version() >> 16};
    if (memcmp(found, majors, sizeof(found)))
        return PyErr_Format(PyExc_ImportError, "libav's major versions are %d, %d and %d", found[0], found[1], found[2]);
    if (!has_opener())
        return PyErr_Format(PyExc_ImportError, "libav keeps its opener elsewhere");
    libav_is_loaded = 1;
    return Py_NewRef(Py_None);
}

/* Open a decoder and close it, from now on without a word: the first one of a kind computes tables, which forks share. */
PyObject *libav_warm_up(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    if (!libav_is_loaded)
        return refuse("libav has not been loaded");
    av_log_set_level(QUIET);
    const struct codec *codec = avcodec_find_decoder_by_name(name);
    void *context = codec ? avcodec_alloc_context3(codec) : NULL;
    if (context)
        avcodec_open2(context, codec, NULL); /* some want a header first; it does not matter here */
    avcodec_free_context(&context);
    return Py_NewRef(Py_None);
}
