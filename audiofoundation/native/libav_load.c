/* Finding the functions of libav.h in the libraries of PyAV's wheel. */

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

/* Resolve what is used of the three libraries, given by path; raises ImportError where they are not those we know. */
PyObject *libav_load(PyObject *module, PyObject *args)
{
    (void)module;
    const char *paths[3];
    if (!PyArg_ParseTuple(args, "sss", &paths[0], &paths[1], &paths[2]))
        return NULL;
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
    if (avformat_version() >> 16 != FORMAT_MAJOR || avcodec_version() >> 16 != CODEC_MAJOR ||
        avutil_version() >> 16 != UTIL_MAJOR)
        return PyErr_Format(PyExc_ImportError, "libav is of another major version");
    av_log_set_level(QUIET);
    libav_is_loaded = 1;
    return Py_NewRef(Py_None);
}

/* Open a decoder and close it: the first one of a kind computes tables, which forks then share. */
PyObject *libav_warm_up(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    if (!libav_is_loaded)
        return refuse("libav has not been loaded");
    const struct codec *codec = avcodec_find_decoder_by_name(name);
    void *context = codec ? avcodec_alloc_context3(codec) : NULL;
    if (context)
        avcodec_open2(context, codec, NULL); /* some want a header first; it does not matter here */
    avcodec_free_context(&context);
    return Py_NewRef(Py_None);
}
