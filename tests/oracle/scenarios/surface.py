"""The module's names and constants, and what is set before a program sets anything."""

from stage import say, shown, signal


def public_names():
    say(*[name for name in sorted(dir(signal)) if not name.startswith("_")])


def constants_are_plain_numbers():
    for name in sorted(dir(signal)):
        value = getattr(signal, name)
        if name.isupper() and not name.startswith("_"):
            say(name, value, type(value).__name__.replace("long", "int"))


def constants_print_as_numbers():
    say(str(signal.SIGINT), repr(signal.SIG_DFL), "%s" % signal.SIG_IGN, "%d" % signal.SIGTERM)


def nsig_is_one_more_than_the_highest():
    numbers = [getattr(signal, n) for n in dir(signal) if n.startswith("SIG") and "_" not in n]
    say(signal.NSIG, max(numbers), max(numbers) + 1 == signal.NSIG)


def itimer_error_is_an_ioerror():
    error = signal.ItimerError
    say(issubclass(error, IOError), issubclass(error, ValueError), error.__module__)
    try:
        signal.getitimer(99)
    except IOError as caught:
        say("caught as IOError", caught, type(caught) is signal.ItimerError, caught.errno)


def dispositions_at_start():
    for signum in range(1, signal.NSIG):
        say(signum, signal.getsignal(signum))


def special_handlers_are_the_plain_numbers():
    for signum in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        handler = signal.getsignal(signum)
        say(shown(handler), handler is signal.SIG_DFL, handler is signal.SIG_IGN)
    say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    after = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(type(before).__name__, before, type(after).__name__, after)
