%% Many small modules, each compiled and loaded at run time; the older ones are deleted. Run by escript:
%% functions.erl MODULES [DUMP]
%% Writes to DUMP, after every tenth module and for each page of executable memory that has changed since,
%% its address and bytes, but for pages of one byte repeated.
-module(functions).
-export([main/1]).

main([Count | Dump]) ->
    {Sum, _} = lists:foldl(fun(Number, State) -> step(Number, State, Dump) end, {0, #{}},
                           lists:seq(1, list_to_integer(Count))),
    io:format("~p~n", [Sum]).

step(Number, {Sum, Pages}, Dump) ->
    {(Sum + call(Number)) rem 65521, dump(Number, Pages, Dump)}.

call(Number) ->
    Name = list_to_atom("functions_" ++ integer_to_list(Number rem 50)),
    Text = io_lib:format("run(0, S) -> S; run(N, S) -> run(N - 1, (S * 31 + N + ~p) rem 65521).", [Number]),
    {ok, Tokens, _} = erl_scan:string(lists:flatten(Text)),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Forms = [{attribute, 1, module, Name}, {attribute, 1, export, [{run, 2}]}, Form],
    {ok, Name, Binary} = compile:forms(Forms),
    code:purge(Name),
    {module, Name} = code:load_binary(Name, "functions", Binary),
    Name:run(1000, Number).

dump(Number, Pages, [File]) when Number rem 10 =:= 0 ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    {ok, Memory} = file:open("/proc/self/mem", [read, raw, binary]),
    {ok, Out} = file:open(File, [append, raw]),
    New = lists:foldl(fun(Line, Old) -> mapping(Line, Memory, Out, Old) end, Pages,
                      binary:split(Maps, <<"\n">>, [global, trim])),
    ok = file:close(Out),
    ok = file:close(Memory),
    New;
dump(_, Pages, _) ->
    Pages.

%% Code is in a memfd called vmem.
mapping(Line, Memory, Out, Pages) ->
    case {binary:match(Line, <<"/memfd:vmem">>), re:run(Line, "^([^-]+)-([^ ]+) ..x", [{capture, [1, 2], list}])} of
        {nomatch, _} -> Pages;
        {_, nomatch} -> Pages;
        {_, {match, [Start, End]}} ->
            pages(list_to_integer(Start, 16), list_to_integer(End, 16), Memory, Out, Pages)
    end.

pages(End, End, _, _, Pages) ->
    Pages;
pages(Address, End, Memory, Out, Pages) ->
    {ok, <<First, _/binary>> = Page} = file:pread(Memory, Address, 4096),
    Old = maps:get(Address, Pages, binary:copy(<<First>>, 4096)),
    case Page of
        Old -> pages(Address + 4096, End, Memory, Out, Pages);
        _ ->
            ok = file:write(Out, [integer_to_binary(Address, 16), " ", binary:encode_hex(Page), "\n"]),
            pages(Address + 4096, End, Memory, Out, Pages#{Address => Page})
    end.
