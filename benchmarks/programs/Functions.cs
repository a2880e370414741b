// Many small methods, each compiled when it is first called. Functions METHODS DUMP
// Writes at its end what executable memory of no file holds, page by page, to DUMP.
using System;
using System.IO;
using System.Reflection.Emit;

static class Functions
{
    static void Main(string[] arguments)
    {
        long sum = 0;
        for (int number = 1; number <= int.Parse(arguments[0]); number++)
            sum = (sum + Compiled(number)(31)) % 65521;
        Console.WriteLine(sum);
        using (var output = new StreamWriter(arguments[1]))
        using (var memory = File.OpenRead("/proc/self/mem"))
            foreach (var line in File.ReadAllLines("/proc/self/maps"))
                Dump(line.Split(new[] { ' ' }, StringSplitOptions.RemoveEmptyEntries), memory, output);
    }

    static Func<int, int> Compiled(int number)
    {
        var method = new DynamicMethod("function" + number, typeof(int), new[] { typeof(int) });
        var code = method.GetILGenerator();
        code.Emit(OpCodes.Ldarg_0);
        code.Emit(OpCodes.Ldc_I4, number);
        code.Emit(OpCodes.Mul);
        code.Emit(OpCodes.Ret);
        return (Func<int, int>)method.CreateDelegate(typeof(Func<int, int>));
    }

    static void Dump(string[] mapping, FileStream memory, StreamWriter output)
    {
        if (mapping.Length > 5 || mapping[4] != "0" || !mapping[1].Contains("x"))
            return;
        var range = mapping[0].Split('-');
        var page = new byte[4096];
        for (long address = Convert.ToInt64(range[0], 16); address < Convert.ToInt64(range[1], 16); address += page.Length)
        {
            memory.Seek(address, SeekOrigin.Begin);
            if (memory.Read(page, 0, page.Length) == page.Length && Array.Exists(page, value => value != page[0]))
                output.WriteLine("{0:x} {1}", address, BitConverter.ToString(page).Replace("-", ""));
        }
    }
}
