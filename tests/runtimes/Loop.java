/** Calls a method often enough for HotSpot's compilers, and prints a sum. */
public class Loop {
    static long step(long sum, int number) {
        return (sum * 3 + number) % 1000003;
    }

    public static void main(String[] arguments) {
        long sum = 0;
        for (int number = 0; number < 3_000_017; number++) {
            sum = step(sum, number);
        }
        System.out.println(sum);
    }
}
