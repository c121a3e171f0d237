"""Refuses handlers that read the owner of rows in a method whose policy has no permission.

Reads the code of the handler, and of the functions, methods and properties in its package that this code names. It does not
follow `getattr`, callbacks or objects in instance attributes; there `Caller.owner_id` raises when it is read.
"""

import dis
import inspect
from collections.abc import Iterable, Iterator, Mapping, Set
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from accord_rpc.policy import Method

_OWNER_IDS: Final = frozenset({"owner_id", "active_organization_id"})


def tenancy_problems(methods: Iterable[Method], handlers: Mapping[str, object]) -> Iterator[str]:
    """`handlers` by the method's path. One sentence for each attribute and function that reads it."""
    for method in methods:
        if method.policy.permission or (handler := _function(handlers.get(method.path))) is None:
            continue
        for function in _reachable(handler, type(getattr(handlers[method.path], "__self__", None))):
            for name in sorted(_OWNER_IDS & _attributes_read(function)):
                yield (
                    f"{method.service}.{method.name}: its policy has no permission, but {function.__module__}."
                    f"{function.__qualname__} reads {name}. A former member whose session still has the organization "
                    "active would read its rows. Add a permission to the policy, or check the membership and name the "
                    "organization with acting_for()"
                )


def _reachable(handler: FunctionType, of: type) -> Iterator[FunctionType]:
    """`of` is the class of the handler's `self`."""
    waiting, seen = [(handler, of)], {handler}
    while waiting:
        function, of = waiting.pop()
        yield function
        for found in _named(function, of):
            if found[0] not in seen:
                seen.add(found[0])
                waiting.append(found)


def _named(function: FunctionType, of: type) -> Iterator[tuple[FunctionType, type]]:
    """Functions of the same package that the code names, each with the class of its `self`."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    named = [function.__globals__[name] for name in names & function.__globals__.keys()]
    if function.__closure__:  # a decorator's wrapper
        named += [getattr(function, "__wrapped__", None), *inspect.getclosurevars(function).nonlocals.values()]
    yield from _functions(named, of, function)
    for each in named:
        if isinstance(each, ModuleType):
            yield from _functions((vars(each)[name] for name in names & vars(each).keys()), of, function)
        elif inspect.isclass(each):
            yield from _functions(_members(each, names | {"__init__"}), each, function)
    yield from _functions(_members(of, names), of, function)


def _members(of: type, names: Set[str]) -> Iterator[object]:
    for each in of.__mro__:
        yield from (vars(each)[name] for name in names & vars(each).keys())


def _functions(candidates: Iterable[object], of: type, caller: FunctionType) -> Iterator[tuple[FunctionType, type]]:
    for candidate in candidates:
        found = _function(candidate)
        if found is not None and _package(found) == _package(caller):
            yield found, of


def _attributes_read(function: FunctionType) -> set[str]:
    """Without those that are only assigned, such as a field of a response."""
    return {
        instruction.argval
        for code in _codes(function.__code__)
        if not _OWNER_IDS.isdisjoint(code.co_names)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
    }


def _codes(code: CodeType) -> Iterator[CodeType]:
    """With comprehensions, lambdas and inner functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _function(candidate: Any) -> FunctionType | None:
    if isinstance(candidate, property):
        candidate = candidate.fget
    candidate = getattr(candidate, "__func__", candidate)  # of a bound, static or class method
    if not isinstance(candidate, FunctionType) and callable(candidate):
        candidate = inspect.unwrap(candidate)  # of functools.cache
    return candidate if isinstance(candidate, FunctionType) else None


def _package(function: FunctionType) -> str:
    return function.__module__.partition(".")[0]
