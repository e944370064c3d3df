// What Sources/tinysns/Terminal uses of C: libedit, whose setters are variadic and so out of Swift's reach.
#pragma once

#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

// Declared by <wchar.h> under _XOPEN_SOURCE only.
int wcwidth(wchar_t character);

// Character types in UTF-8, whatever the environment says otherwise: all text here is UTF-8.
static inline void tinysns_use_utf8(void) {
    if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

static inline int tinysns_terminal_columns(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// An editor on standard input and output that asks `read` for each character and `prompt` for its prompt, in which
// `mark` encloses what takes no room on the screen. `data` is for these two.
static inline EditLine *tinysns_edit_open(const char *name, int (*read)(EditLine *, wchar_t *),
                                          wchar_t *(*prompt)(EditLine *), wchar_t mark, void *data) {
    EditLine *edit = el_init_fd(name, stdin, stdout, stderr, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO);
    if (edit == NULL) return NULL;
    el_wset(edit, EL_CLIENTDATA, data);
    el_wset(edit, EL_PROMPT_ESC, prompt, mark);
    el_wset(edit, EL_EDITOR, L"emacs");
    el_wset(edit, EL_SIGNAL, 0);
    el_wset(edit, EL_GETCFN, read);
    // Between two lines the terminal must not echo either: what is typed then belongs to the next line.
    el_wset(edit, EL_SETTY, L"-x", L"-echo", L"-icanon", NULL);
    el_wset(edit, EL_BIND, L"^R", L"em-inc-search-prev", NULL);
    return edit;
}

static inline void *tinysns_edit_data(EditLine *edit) {
    void *data = NULL;
    el_wget(edit, EL_CLIENTDATA, &data);
    return data;
}

// Draws prompt and text anew, from an empty row on.
static inline void tinysns_edit_draw(EditLine *edit) { el_wset(edit, EL_REFRESH); }

static inline void tinysns_edit_bind_tab(EditLine *edit, unsigned char (*complete)(EditLine *, wint_t)) {
    el_wset(edit, EL_ADDFN, L"tinysns-complete", L"Complete a command or a name", complete);
    el_wset(edit, EL_BIND, L"^I", L"tinysns-complete", NULL);
}

static inline HistoryW *tinysns_history_open(EditLine *edit, int size) {
    HistoryW *history = history_winit();
    if (history == NULL) return NULL;
    HistEventW event;
    history_w(history, &event, H_SETSIZE, size);
    history_w(history, &event, H_SETUNIQUE, 1);
    el_wset(edit, EL_HIST, history_w, history);
    return history;
}

static inline void tinysns_history_add(HistoryW *history, const wchar_t *line) {
    HistEventW event;
    history_w(history, &event, H_ENTER, line);
}
